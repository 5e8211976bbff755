//! Lint attributes above and below hold for the body.

#![deny(unused_mut, clippy::pedantic, non_snake_case)]

use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

#[allow(non_snake_case)]
#[idempotent(ttl = "1m", scope = global)]
#[expect(unused_mut, reason = "a lint that must be raised, and on the body")]
async fn placeOrder(body: String) -> String {
    let mut placed = body;
    drop(placed.clone());
    placed
}

#[idempotent(ttl = "1m", scope = global)]
async fn cancel_order(#[allow(unused_mut)] mut body: String) -> String {
    body
}

#[idempotent(ttl = "1m", scope = global)]
async fn change_order(body: String) -> String {
    #![allow(unused_mut)]
    let mut changed = body;
    drop(changed.clone());
    changed
}

pub(crate) fn route() -> MethodRouter {
    post(placeOrder).delete(cancel_order).put(change_order)
}
