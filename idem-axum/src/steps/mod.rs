//! Durable steps: a retry goes on where the attempt before it stopped.
//!
//! Owns the extractor, and the answers to the errors of steps. Which body is called, and what is recorded, is
//! [`idem_core::steps`]'s.

#[cfg(feature = "transaction")]
mod transact;

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use idem_core::StepErrorKind;
use idem_core::steps::{AtLeastOnce, Step, StepRun};
use idem_http::{IdempotencyProblem, Settings};

use crate::Execution;
use crate::bounds::{StepFailure, StepResult};
use crate::problem::ProblemDetails;

/// An extractor that gives a handler durable steps: what one attempt has finished, the next one does not do again.
///
/// ```
/// use axum::Json;
/// use axum::response::{IntoResponse, Response};
/// use idem_axum::{StepError, Steps, idempotent};
/// # use axum::http::StatusCode;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] struct Payment { cents: u32 }
/// # #[derive(Serialize, Deserialize)] struct Hold { id: String }
/// # #[derive(Serialize, Deserialize)] struct Charge { id: String }
/// # struct Provider;
/// # impl Provider {
/// #     async fn hold(&self, _key: String, _: &Payment) -> Result<Hold, PayError> { Err(PayError::Provider) }
/// #     async fn capture(&self, _key: String, _: &Hold) -> Result<Charge, PayError> { Err(PayError::Provider) }
/// #     async fn find(&self, _: &Hold) -> Result<Option<Charge>, PayError> { Err(PayError::Provider) }
/// # }
/// # const PROVIDER: Provider = Provider;
///
/// enum PayError {
///     Step(StepError),
///     Provider,
/// }
///
/// impl From<StepError> for PayError {
///     fn from(error: StepError) -> Self {
///         Self::Step(error)
///     }
/// }
///
/// impl IntoResponse for PayError {
///     fn into_response(self) -> Response {
///         match self {
///             Self::Step(error) => error.into_response(),
///             Self::Provider => StatusCode::BAD_GATEWAY.into_response(), // not kept: the retry goes on after the steps
///         }
///     }
/// }
///
/// #[idempotent(ttl = "24h", scope = global)]
/// async fn pay(steps: Steps, Json(payment): Json<Payment>) -> Result<Json<Charge>, PayError> {
///     let hold = steps.run("hold", |step| PROVIDER.hold(step.downstream_key(), &payment)).of(&payment).await?;
///     let charge = steps
///         .run("capture", |step| PROVIDER.capture(step.downstream_key(), &hold))
///         .at_most_once()
///         .reconcile(|| PROVIDER.find(&hold))
///         .await?;
///     Ok(Json(charge))
/// }
/// ```
///
/// An attempt ends by a crash, a panic, or an answer that is not kept, such as a 500. Its steps are kept then, and so is what the
/// request is compared by: the client's next retry is the next attempt, and another body under the key is 422. When an answer is
/// kept, the steps are deleted.
///
/// | a step | is |
/// |---|---|
/// | its name | 1 to 64 ASCII letters, digits, `-` and `_`; used once in an attempt. It identifies the step, also after a deploy |
/// | its result | kept in its serde form as JSON, up to 64 KiB, or as [`Idempotency::with_step_limits`](crate::Idempotency::with_step_limits) says |
/// | an `Err` of its body | not recorded. What failed for good is a result: `Ok(Declined)` |
/// | its body | called again if an attempt dies between the effect and the record: pass [`downstream_key`](idem_core::steps::Step::downstream_key) on, or use [`at_most_once`](StepRun::at_most_once) |
///
/// Steps may run at the same time, for example in `join!`. Calls between the steps run in every attempt.
///
/// Where the request runs unprotected, without a key that is not required or in an outage, every body is called and nothing is
/// recorded. The same holds where the service only [observes](crate::Idempotency::observing). In a handler that nothing guards, every
/// step is an error, and so it is over a backend that keeps no steps.
#[derive(Clone, Debug)]
pub struct Steps {
    execution: Execution,
    /// Where the records are, for steps in a transaction.
    #[cfg(feature = "transaction")]
    slot: crate::transaction::Slot,
}

impl Steps {
    fn core(&self) -> &idem_core::Steps {
        self.execution.steps()
    }

    /// The number of this attempt: 1, and one more each time that the request is run again.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.core().attempt()
    }

    /// Whether the step `name` is recorded as done, by this attempt or an earlier one.
    ///
    /// # Errors
    ///
    /// If the backend cannot be asked, or another attempt has taken the request over.
    pub async fn is_recorded(&self, name: &'static str) -> Result<bool, StepError> {
        Ok(self.core().is_recorded(name).await?)
    }

    /// Runs a step once for all attempts of this request: await the result.
    ///
    /// `body` gets the [`Step`], which has a key for the call that it makes. Its error must be one that a
    /// [`StepError`] converts into.
    pub fn run<B, F, T, E>(&self, name: &'static str, body: B) -> StepRun<'_, B, AtLeastOnce, StepError>
    where
        B: FnOnce(Step) -> F,
        F: Future<Output = Result<T, E>>,
        T: StepResult,
        E: StepFailure,
    {
        let run = self.core().run(name, body);
        #[cfg(feature = "transaction")]
        let run = run.check_first(move || self.slot.sql().check_run(name));
        run
    }
}

impl<S: Sync> FromRequestParts<S> for Steps {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let execution = Execution::of(&mut parts.extensions);
        execution.note_steps();
        Ok(Self {
            execution,
            #[cfg(feature = "transaction")]
            slot: crate::transaction::Slot::of(&mut parts.extensions),
        })
    }
}

/// Why a step has no result. As a response, it is the right answer to the request: one that is not kept, so that the steps are.
///
/// | [`kind`](Self::kind) | response |
/// |---|---|
/// | `Superseded` | 409 `in-flight` |
/// | `Interrupted`, `Lost`, `Diverged`, `Unreadable`, `ResultNotKept` | 409 `outcome-unknown`, whose `detail` names the step |
/// | `Unavailable`, `NotRecorded` | 503 `backend-unavailable` |
/// | `RolledBack { may_pass: true }` | 503 `rolled-back` |
/// | `RolledBack { may_pass: false }` | 500 `rolled-back` |
/// | `NotCommitted` | 503 `not-committed` |
/// | `NameInvalid`, `NameUsedTwice`, `TooMany`, `NoSerdeForm`, `InTransaction`, `NotConfigured` | 500 `not-configured` |
#[derive(Debug)]
pub struct StepError {
    error: idem_core::StepError,
    /// Whether the handler runs without a claim, by which a retry would find out what was committed.
    #[cfg(feature = "transaction")]
    is_unprotected: bool,
}

impl StepError {
    /// The class of the error.
    #[must_use]
    pub fn kind(&self) -> StepErrorKind {
        self.error.kind()
    }

    /// The name of the step.
    #[must_use]
    pub fn name(&self) -> &str {
        self.error.name()
    }

    /// What the client is told.
    fn told(&self) -> Told {
        let (problem, detail) = match self.kind() {
            StepErrorKind::Superseded => (IdempotencyProblem::InFlight, None),
            StepErrorKind::Interrupted => (
                IdempotencyProblem::OutcomeUnknown,
                Some("was begun by an earlier attempt, and whether it took effect is not known"),
            ),
            StepErrorKind::Lost
            | StepErrorKind::Diverged
            | StepErrorKind::Unreadable
            | StepErrorKind::ResultNotKept => (
                IdempotencyProblem::OutcomeUnknown,
                Some("cannot go on after what an earlier attempt did"),
            ),
            StepErrorKind::Unavailable | StepErrorKind::NotRecorded => (
                IdempotencyProblem::BackendUnavailable,
                Some("could not be recorded; a retry under the same key goes on"),
            ),
            StepErrorKind::RolledBack { may_pass } => (IdempotencyProblem::RolledBack { may_pass }, None),
            StepErrorKind::NotCommitted => (IdempotencyProblem::NotCommitted, None),
            _ => (IdempotencyProblem::NotConfigured, None),
        };
        let name = self.name().escape_debug();
        Told {
            problem,
            detail: detail.map(|detail| format!("The step `{name}` of this request {detail}.")),
            #[cfg(feature = "transaction")]
            is_of_unprotected: self.is_unprotected && problem == IdempotencyProblem::NotCommitted,
            #[cfg(not(feature = "transaction"))]
            is_of_unprotected: false,
        }
    }
}

impl From<idem_core::StepError> for StepError {
    fn from(error: idem_core::StepError) -> Self {
        Self {
            error,
            #[cfg(feature = "transaction")]
            is_unprotected: false,
        }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for StepError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl IntoResponse for StepError {
    fn into_response(self) -> Response {
        tracing::error!(
            step = self.name(),
            error = &self as &dyn Error,
            "a step of a request has no result"
        );
        let told = self.told();
        let details = told.details(idem_http::ProblemDetails::new(told.problem, None));
        let mut response = ProblemDetails(details).into_response();
        response.extensions_mut().insert(told);
        response
    }
}

/// A refusal by a step, which does not know what refusals of its application look like.
#[derive(Clone)]
struct Told {
    problem: IdempotencyProblem,
    /// What is special about this one.
    detail: Option<String>,
    is_of_unprotected: bool,
}

impl Told {
    fn details(&self, details: idem_http::ProblemDetails) -> idem_http::ProblemDetails {
        match &self.detail {
            Some(detail) => details.with_detail(detail.clone()),
            None if self.is_of_unprotected => details.of_unprotected(),
            None => details,
        }
    }
}

/// Gives the refusals of steps the shape of the application's problems.
pub(crate) fn shaped_step_errors(
    handler: impl Future<Output = Response> + Send + 'static,
    settings: Arc<Settings>,
) -> BoxFuture<'static, Response> {
    handler
        .map(move |mut response| match response.extensions_mut().remove::<Told>() {
            Some(told) => {
                let details = told.details(settings.details(told.problem));
                settings.refuse(details).map(Body::new)
            }
            None => response,
        })
        .boxed()
}
