//! `#[tracing::instrument]` below takes the fields of what axum calls.

use axum::extract::Path;
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

#[idempotent(ttl = "1m", scope = tenant)]
#[tracing::instrument(level = "debug", skip_all, fields(kind = "order"))]
async fn place_order(Path(tenant): Path<String>, body: String) -> String {
    format!("{body} to {tenant}")
}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
}
