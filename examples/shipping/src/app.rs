//! The router, and the state its handlers share.
//!
//! Owns which path leads where, and that the idempotency layer and a span of its own are over all of them. What the
//! handlers do is in [`orders`].

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::middleware::from_fn;
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use idem_axum::Idempotency;

use crate::db::Db;
use crate::tenant::Tokens;
use crate::{document, orders, traces};

/// What every handler can reach.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) db: Db,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) delay: Duration,
}

/// `place_order` is the handler that suits where the records are.
pub(crate) fn router(app: App, idempotency: Idempotency, place_order: MethodRouter<App>) -> Router {
    let document = Json(document::of(&idempotency));
    Router::new()
        .route("/openapi.json", get(async || document))
        .route("/shipping/order", place_order)
        .route("/naive/shipping/order", post(orders::place_order_naively))
        .route("/shipping/orders", get(orders::list_orders))
        .layer(idempotency)
        .layer(from_fn(traces::in_span))
        .with_state(app)
}
