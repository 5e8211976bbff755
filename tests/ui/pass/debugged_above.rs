//! `#[axum::debug_handler]` above.

use axum::extract::Path;
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

#[axum::debug_handler]
#[idempotent(ttl = "1m", scope = tenant)]
async fn place_order(Path(tenant): Path<String>, body: String) -> String {
    format!("{body} to {tenant}")
}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
}
