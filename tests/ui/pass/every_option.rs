//! All options that go together.

use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, post};
use idem_axum::{Idempotency, MemoryBackend, idempotent};

use super::NewOrder;

#[idempotent(
    ttl = "1h 30m",
    scope = order.item,
    header = "Idempotency-Key",
    required = true,
    name = "every-option",
    lease = "2s",
    in_flight = "wait",
    wait = "1s",
    after_crash = "rerun",
    rerun_within = "20h",
    max_attempts = 5,
    max_run = "10m",
    store = "success",
    fingerprint = (order.order_id, order.item),
    on_outage = "run",
    max_response = "64 KiB",
    engine = idempotency,
    crate = ::idem_axum
)]
async fn place_order(State(idempotency): State<Idempotency>, Json(order): Json<NewOrder>) -> String {
    drop(idempotency);
    order.item
}

pub(crate) fn route() -> MethodRouter {
    post(place_order).with_state(Idempotency::new(MemoryBackend::new()))
}
