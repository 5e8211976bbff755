//! What an application sets up once: a backend, and the layer that gives it to annotated handlers.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::middleware::AddExtension;
use idem_core::{Backend, Engine};
use tower_layer::Layer;

/// Makes annotated handlers of a router safe to retry.
///
/// Layer it over the routes whose handlers carry `#[idempotent]`, and [`drain`](Idempotency::drain) it when the server
/// has stopped. Clones share the backend and the running handlers.
///
/// ```
/// use axum::{Router, routing::post};
/// use idem_axum::{Idempotency, MemoryBackend, idempotent};
///
/// #[idempotent(ttl = "24h", scope = global)]
/// async fn place_order() -> &'static str {
///     "placed"
/// }
///
/// # #[tokio::main]
/// # async fn main() {
/// let idempotency = Idempotency::new(MemoryBackend::new());
/// let app: Router = Router::new()
///     .route("/orders", post(place_order))
///     .layer(idempotency.clone());
/// // axum::serve(listener, app).with_graceful_shutdown(signal).await?;
/// idempotency.drain().await;
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Idempotency {
    engine: Engine,
    documentation: Option<Arc<str>>,
}

impl Idempotency {
    /// Keeps records in `backend`.
    pub fn new(backend: impl Backend) -> Self {
        Self {
            engine: Engine::new(backend),
            documentation: None,
        }
    }

    /// Sets how long a single backend call may take; one second where nothing is set.
    ///
    /// A request whose claim takes longer is answered with 503 and its handler does not run (IDEM-13).
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.engine = self.engine.with_deadline(deadline);
        self
    }

    /// Sets the page that documents the API's use of idempotency keys.
    ///
    /// Problem responses then point at it: `type` becomes `base#code`, and a `Link` header with `rel="describedby"`
    /// says the same. Without it `type` is `about:blank`.
    #[must_use]
    pub fn with_documentation(mut self, base: impl Into<String>) -> Self {
        self.documentation = Some(base.into().into());
        self
    }

    /// Waits until every handler that was started has ended and its outcome is recorded.
    ///
    /// A handler whose client has left runs on (IDEM-5), and graceful shutdown does not wait for it. Call this after
    /// `axum::serve` has returned and before the runtime ends.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops only the waiting; wrap it in a timeout to bound a shutdown.
    pub async fn drain(&self) {
        self.engine.drain().await;
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn documentation(&self) -> Option<&str> {
        self.documentation.as_deref()
    }
}

impl<S> Layer<S> for Idempotency {
    type Service = AddExtension<S, Self>;

    fn layer(&self, inner: S) -> Self::Service {
        Extension(self.clone()).layer(inner)
    }
}
