//! What the attribute uses is used.

#![deny(unused_variables)]

use axum::extract::Path;
use axum::extract::State;
use axum::routing::{MethodRouter, post};
use idem_axum::{Idempotency, MemoryBackend, idempotent};

#[idempotent(ttl = "1m", scope = tenant, key = body, fingerprint = body, engine = idempotency)]
async fn place_order(Path(tenant): Path<String>, State(idempotency): State<Idempotency>, body: String) -> &'static str {
    "placed"
}

pub(crate) fn route() -> MethodRouter {
    post(place_order).with_state(Idempotency::new(MemoryBackend::new()))
}
