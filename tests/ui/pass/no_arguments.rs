//! Nothing to extract, and nothing to return.

use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

#[idempotent(ttl = "1m", scope = global)]
async fn place_order() {}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
}
