//! The engine is a field of an argument.

use axum::extract::State;
use axum::routing::{MethodRouter, post};
use idem_axum::{Idempotency, MemoryBackend, idempotent};

#[derive(Clone)]
struct App {
    idempotency: Idempotency,
}

#[idempotent(ttl = "1m", scope = body, engine = app.idempotency)]
async fn place_order(State(app): State<App>, body: String) -> String {
    drop(app);
    body
}

pub(crate) fn route() -> MethodRouter {
    let idempotency = Idempotency::new(MemoryBackend::new());
    post(place_order).with_state(App { idempotency })
}
