//! The layer form: what inner layers do is part of the recorded answer, and no request is guarded by accident.
//!
//! The contract of `docs/http.md` is in `contract`, in both forms.

mod bodies;
mod errors;
mod handlers;
mod inner_layers;
mod requests;
mod scopes;

use std::time::Duration;

use axum::Router;
use idem_axum::{Idempotency, IdempotencyLayer, MemoryBackend, NoScope, Scoped};
use idem_tests::{App, Service};

const TTL: Duration = Duration::from_hours(1);

fn idempotency() -> Idempotency {
    Idempotency::new(MemoryBackend::new())
}

/// A layer that has no scope yet, and guards what the other routes of the service under test are not.
fn unscoped(idempotency: &Idempotency) -> IdempotencyLayer<NoScope> {
    IdempotencyLayer::new(idempotency.clone(), TTL)
}

/// A layer with one key space.
fn layer(idempotency: &Idempotency) -> IdempotencyLayer<Scoped> {
    unscoped(idempotency).scope_global()
}

/// A service whose `routes` have their layers.
async fn serve(idempotency: &Idempotency, routes: Router<App>) -> Service {
    Service::wrapped(idempotency.clone(), routes, |router| router).await
}
