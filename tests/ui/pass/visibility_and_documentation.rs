//! `pub(crate)`, doc comments and `#[doc]` stay on the function.

#![deny(missing_docs)]
#![allow(unreachable_pub, reason = "the item is public in a library of its author")]

use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

/// What others may call.
pub mod orders {
    use super::idempotent;

    /// Places an order.
    ///
    /// It is placed once.
    #[doc(alias = "ship")]
    #[idempotent(ttl = "1m", scope = global)]
    pub async fn place_order(/* the order */ body: String) -> String {
        body
    }

    #[idempotent(ttl = "1m", scope = global)]
    pub(in super::super) async fn cancel_order() {}
}

pub(crate) fn route() -> MethodRouter {
    post(orders::place_order).delete(orders::cancel_order)
}
