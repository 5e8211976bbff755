//! What a service offers to its operators.

use idem_core::inspect::Operator;

use super::Idempotency;

impl Idempotency {
    /// The records of this service, for its operator `name`; `None` if the backend cannot be inspected.
    ///
    /// For admin routes of the application's own, which have to check who calls. Every change names the version of the record that the
    /// operator has seen, and is logged with the name and the reason, with hashed keys where the service logs them so. The command line tool `idem` does the same from a terminal.
    ///
    /// ```
    /// use axum::extract::{Path, State};
    /// use axum::http::StatusCode;
    /// use idem_axum::Idempotency;
    /// use idem_axum::operator::{LiveClaim, RecordKey, Settled, Settlement};
    ///
    /// /// Lets the next request with the key run again. `Admin` stands for the application's check of who calls.
    /// async fn forget(State(idempotency): State<Idempotency>, Path(key): Path<String>) -> StatusCode {
    ///     let Some(key) = RecordKey::from_encoded(&key) else { return StatusCode::BAD_REQUEST };
    ///     let Some(operator) = idempotency.operator("ada") else { return StatusCode::NOT_IMPLEMENTED };
    ///     let Ok(Some(shown)) = operator.show(&key).await else { return StatusCode::NOT_FOUND };
    ///     let version = shown.summary.version();
    ///     match operator.settle(&key, version, &Settlement::Forget, LiveClaim::Refuse, "ticket 4711").await {
    ///         Ok(Settled::Applied) => StatusCode::NO_CONTENT,
    ///         Ok(_) => StatusCode::CONFLICT,
    ///         Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn operator(&self, name: impl Into<String>) -> Option<Operator> {
        let operator = self.0.engine.operator(name)?;
        Some(if self.0.settings.hashed_keys {
            operator.with_hashed_keys()
        } else {
            operator
        })
    }
}
