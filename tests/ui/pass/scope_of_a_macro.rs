//! Names inside a macro, and in its format string, are arguments too.

use axum::extract::Path;
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

#[idempotent(ttl = "1m", scope = format!("{tenant}-{}", 1))]
async fn place_order(Path(tenant): Path<String>) -> String {
    tenant
}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
}
