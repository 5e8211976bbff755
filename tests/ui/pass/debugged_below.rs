//! `#[axum::debug_handler]` below, with a state, and without arguments.

use axum::extract::State;
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

#[idempotent(ttl = "1m", scope = global)]
#[axum::debug_handler(state = u32)]
async fn place_order(State(number): State<u32>, body: String) -> String {
    format!("{body} {number}")
}

#[idempotent(ttl = "1m", scope = global)]
#[axum::debug_handler]
async fn cancel_order() {}

pub(crate) fn route() -> MethodRouter {
    post(place_order).with_state(7).delete(cancel_order)
}
