//! By its path, and under another name.

use axum::routing::{MethodRouter, post};
use idem_axum::idempotent as once;

#[idem_axum::idempotent(ttl = "1m", scope = global)]
async fn place_order(body: String) -> String {
    body
}

#[once(ttl = "1m", scope = global,)]
async fn cancel_order() {}

pub(crate) fn route() -> MethodRouter {
    post(place_order).delete(cancel_order)
}
