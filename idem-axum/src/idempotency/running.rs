//! What a running service asks: whether it is ready for requests, and whether its handlers have ended.

use std::sync::atomic::Ordering;

use idem_core::BackendError;

use super::Idempotency;

impl Idempotency {
    /// Asks the backend whether it would accept claims now, within the deadline; for readiness probes.
    ///
    /// On Redis it writes a key of its own, so that a server that takes no writes fails it; of a cluster it asks one
    /// primary. On Postgres it looks at the tables and asks whether the server takes writes. On SQLite it takes the lock for
    /// writing and looks at the table.
    ///
    /// A handler that takes a `Transaction` or a `Joint`, on a backend in another database, makes it fail from its first request on, and
    /// so does one that takes `Steps`, on a backend that keeps none: which arguments a route's handler takes is not known before. Call each such route once in a test.
    ///
    /// ```
    /// use axum::extract::State;
    /// use axum::http::StatusCode;
    /// use idem_axum::Idempotency;
    ///
    /// async fn ready(State(idempotency): State<Idempotency>) -> StatusCode {
    ///     match idempotency.check().await {
    ///         Ok(()) => StatusCode::OK,
    ///         Err(_error) => StatusCode::SERVICE_UNAVAILABLE,
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// When the backend cannot be reached, refuses, or does not answer in time.
    /// [`BackendErrorKind::Config`](crate::BackendErrorKind::Config) where a handler wants a `Transaction`, a `Joint` or `Steps` that the
    /// backend does not have, or the first two together.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the question, and nothing else.
    pub async fn check(&self) -> Result<(), BackendError> {
        #[cfg(feature = "transaction")]
        if self.0.has_unfit_handler.load(Ordering::Relaxed) {
            let context = "a handler takes a `Transaction` or a `Joint` that it cannot be given; the log says why";
            return Err(BackendError::new(idem_core::BackendErrorKind::Config, context));
        }
        if self.0.lacks_steps.load(Ordering::Relaxed) {
            let context = "a handler takes `Steps`, and the backend keeps none";
            return Err(BackendError::new(idem_core::BackendErrorKind::Config, context));
        }
        self.0.engine.check().await
    }

    /// A handler takes a `Transaction` or a `Joint` that it cannot be given.
    #[cfg(feature = "transaction")]
    pub(crate) fn note_unfit_handler(&self) {
        self.0.has_unfit_handler.store(true, Ordering::Relaxed);
    }

    /// Waits until every handler that was started has ended and its outcome is recorded.
    ///
    /// A handler whose client has left runs on (IDEM-5), and graceful shutdown does not wait for it. Call this after
    /// `axum::serve` has returned and before the runtime ends. A handler that runs for longer than its `max_run` is not waited for
    /// once its claim has lapsed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops only the waiting; wrap it in a timeout to bound a shutdown.
    pub async fn drain(&self) {
        self.0.engine.drain().await;
    }
}
