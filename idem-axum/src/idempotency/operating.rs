//! What a service offers to its operators.

use idem_core::Scope;
use idem_core::inspect::Operator;
use idem_http::settings::Settings;
use idem_http::why::Guard;

use super::Idempotency;

impl Idempotency {
    /// The records of this service, for its operator `name`; `None` if the backend cannot be inspected.
    ///
    /// For admin routes of the application's own, which have to check who calls. Every change names the version of the record that the
    /// operator has seen, and is logged with the operator's name and the reason, and with hashed keys if the service logs them so. The
    /// command line tool `idem` does the same from a terminal.
    ///
    /// ```
    /// use axum::extract::{FromRequestParts, Path, State};
    /// use axum::http::{StatusCode, request::Parts};
    /// use axum::Json;
    /// use idem_axum::Idempotency;
    /// use idem_axum::operator::{LiveClaim, RecordKey, RecordVersion, Settled, Settlement};
    /// use serde::Deserialize;
    ///
    /// /// Who calls. This stands for the application's own check of a session or a token.
    /// struct Admin(String);
    ///
    /// impl<S: Sync> FromRequestParts<S> for Admin {
    ///     type Rejection = StatusCode;
    ///
    ///     async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, StatusCode> {
    ///         Err(StatusCode::FORBIDDEN)
    ///     }
    /// }
    ///
    /// #[derive(Deserialize)]
    /// struct Forget {
    ///     /// The version of the record on the page where the admin has pressed the button.
    ///     version: String,
    ///     reason: String,
    /// }
    ///
    /// async fn forget(
    ///     Admin(name): Admin,
    ///     State(idempotency): State<Idempotency>,
    ///     Path(key): Path<String>,
    ///     Json(asked): Json<Forget>,
    /// ) -> StatusCode {
    ///     let (Some(key), Ok(version)) = (RecordKey::from_encoded(&key), asked.version.parse::<RecordVersion>()) else {
    ///         return StatusCode::BAD_REQUEST;
    ///     };
    ///     let Some(operator) = idempotency.operator(name) else {
    ///         return StatusCode::NOT_IMPLEMENTED;
    ///     };
    ///     match operator.settle(&key, version, &Settlement::Forget, LiveClaim::Refuse, &asked.reason).await {
    ///         Ok(Settled::Applied) => StatusCode::NO_CONTENT,
    ///         Ok(_) => StatusCode::CONFLICT,
    ///         // The record may be forgotten or not. The log has a line about it.
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

    /// The guard of an operation of this service, with the service's settings and defaults, which says what a request would get. Set the
    /// options of the handler's attribute on it.
    ///
    /// ```
    /// use std::time::SystemTime;
    ///
    /// use axum::http::Request;
    /// use idem_axum::operator::{Scope, why::Forecast};
    /// use idem_axum::{Idempotency, IdempotencyProblem, MemoryBackend};
    ///
    /// let idempotency = Idempotency::new(MemoryBackend::new()).with_strict_keys();
    /// let guard = idempotency.guard("POST /orders", Scope::of("acme"));
    /// let unquoted = Request::post("/orders").header("idempotency-key", "k-1").body("{}".into())?;
    /// let forecast = guard.forecast(&unquoted, None, SystemTime::now());
    /// assert_eq!(forecast, Forecast::Refused(IdempotencyProblem::KeyInvalid));
    /// # Ok::<(), axum::http::Error>(())
    /// ```
    #[must_use]
    pub fn guard(&self, operation: impl Into<String>, scope: Scope) -> Guard {
        let settings = Settings::clone(&self.0.settings);
        Guard {
            policy: settings.defaults,
            settings,
            ..Guard::new(operation, scope)
        }
    }
}
