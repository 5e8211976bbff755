//! The handler of the documentation.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

use super::NewOrder;

#[idempotent(ttl = "24h", scope = "tenant")]
async fn place_order(Path(tenant): Path<String>, Json(order): Json<NewOrder>) -> (StatusCode, String) {
    (StatusCode::CREATED, format!("{} to {tenant}", order.item))
}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
}
