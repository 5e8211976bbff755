//! A handler needs no module of its own.

use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

pub(crate) fn route() -> MethodRouter {
    const SUFFIX: &str = "!";

    #[idempotent(ttl = "1m", scope = global)]
    async fn place_order(body: String) -> String {
        body + SUFFIX
    }

    post(place_order)
}
