//! `docs/layers.md`: what layers add after an annotated handler, or count before it, is not in the record.
//!
//! Each part shows what the page says happens, on the first answer, on a replay and after a disconnect, and that the
//! remedy on the page is right in all three. Layers that are safe are in `outer_layers`.

pub(crate) mod commits;
mod cookies;
mod error_bodies;
mod limits;
mod one_time_tokens;
mod sessions;
mod task_locals;
mod tenants;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::{Extension, Router};
use idem_axum::{Idempotency, MemoryBackend};
use idem_tests::{App, Call, Service, in_time};
use tokio::sync::Notify;

/// Holds handlers half-way, from when it is closed until it is opened.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<GateState>);

#[derive(Default)]
struct GateState {
    is_closed: AtomicBool,
    reached: Notify,
    opened: Notify,
}

impl Gate {
    /// Where a handler waits if the gate is closed.
    pub(crate) async fn pass(&self) {
        if self.0.is_closed.load(Ordering::SeqCst) {
            self.0.reached.notify_one();
            self.0.opened.notified().await;
        }
    }

    pub(crate) fn close(&self) {
        self.0.is_closed.store(true, Ordering::SeqCst);
    }

    /// Waits until a handler is at the closed gate.
    pub(crate) async fn reached(&self) {
        in_time(self.0.reached.notified()).await;
    }

    /// Lets the one handler that waits, and all that come later, go on.
    pub(crate) fn open(&self) {
        self.0.is_closed.store(false, Ordering::SeqCst);
        self.0.opened.notify_one();
    }
}

/// A service on memory whose handlers find `gate`, with layers around it.
pub(crate) async fn service(gate: &Gate, routes: Router<App>, wrap: impl FnOnce(Router) -> Router) -> Service {
    let routes = routes.layer(Extension(gate.clone()));
    Service::wrapped(Idempotency::new(MemoryBackend::new()), routes, wrap).await
}

/// Sends a request, hangs up while its handler is at the gate, and waits until the handler has ended by itself. It has to
/// be the first client of the service that leaves.
pub(crate) async fn hang_up(service: &Service, gate: &Gate, call: Call) {
    gate.close();
    let sending = tokio::spawn(call.try_send());
    gate.reached().await;
    sending.abort();
    service.app.wait_until_departed(1).await;
    gate.open();
    service.idempotency.drain().await;
}
