//! An expression in quotes is that expression.

use axum::extract::Path;
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

#[idempotent(ttl = "1m", scope = "tenant.to_uppercase()")]
async fn place_order(Path(tenant): Path<String>) -> String {
    tenant
}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
}
