//! The engine comes from a method, by reference, out of the last argument.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::{MethodRouter, post};
use idem_axum::{Idempotency, MemoryBackend, idempotent};

struct App(Arc<Idempotency>);

impl App {
    fn idempotency(&self) -> &Arc<Idempotency> {
        &self.0
    }
}

#[axum::debug_handler(state = Arc<App>)]
#[idempotent(ttl = "1m", scope = global, engine = "app.idempotency()")]
async fn place_order(State(app): State<Arc<App>>) -> String {
    Arc::strong_count(&app).min(1).to_string()
}

pub(crate) fn route() -> MethodRouter {
    let idempotency = Idempotency::new(MemoryBackend::new());
    post(place_order).with_state(Arc::new(App(Arc::new(idempotency))))
}
