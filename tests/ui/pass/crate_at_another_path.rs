//! The expansion finds us where the author says.

use axum::routing::{MethodRouter, post};
use deps::idem::idempotent;

mod deps {
    pub(super) use idem_axum as idem;
}

#[idempotent(ttl = "1m", scope = body, key = body, fingerprint = body, in_flight = "wait", crate = self::deps::idem)]
async fn place_order(body: String) -> String {
    body
}

#[idempotent(ttl = "1m", scope = global, crate = "crate::pass::crate_at_another_path::deps::idem")]
async fn cancel_order() {}

pub(crate) fn route() -> MethodRouter {
    post(place_order).delete(cancel_order)
}
