//! What an application sets once for all its annotated handlers.
//!
//! Owns the settings that concern HTTP, as [`Idempotency`](crate::Idempotency) holds them, and the two functions of the
//! application's own among them: what a key looks like, and what a problem's response looks like.

use std::fmt::{self, Display};
use std::sync::Arc;

use axum::http::header::HeaderName;
use axum::response::{IntoResponse, Response};

use crate::policy::Policy;
use crate::problem::{IdempotencyProblem, ProblemDetails};

#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) defaults: Policy,
    pub(crate) documentation: Option<Arc<str>>,
    pub(crate) strict_keys: bool,
    pub(crate) hashed_keys: bool,
    /// Requests are counted by key as well.
    pub(crate) key_label: bool,
    pub(crate) key_format: Option<KeyFormat>,
    pub(crate) unstored_headers: Arc<[HeaderName]>,
    pub(crate) problem_response: Option<ProblemResponse>,
}

impl Settings {
    /// The response to a request that is refused for one of the reasons there are.
    pub(crate) fn problem(&self, problem: IdempotencyProblem) -> Response {
        self.refuse(ProblemDetails::new(problem, self.documentation.as_deref()))
    }

    /// The response to a request that ran without a claim, and of which nobody knows whether its effects were committed.
    /// Nothing invites a second run, for nothing would tell it from the first.
    #[cfg(feature = "postgres")]
    pub(crate) fn not_committed_unprotected(&self) -> Response {
        let problem = IdempotencyProblem::NotCommitted;
        let mut details = ProblemDetails::new(problem, self.documentation.as_deref());
        details.retry_after = None;
        let detail = "The request ran, and whether it took effect is not known. It was not protected, so sending it again may \
                      carry it out twice.";
        self.refuse(details.with_detail(detail))
    }

    /// The response to a request that is refused.
    pub(crate) fn refuse(&self, details: ProblemDetails) -> Response {
        match &self.problem_response {
            Some(ProblemResponse(shape)) => details.shaped_by(|details| shape(details)),
            None => details.into_response(),
        }
    }
}

/// The error is for the client.
type Check = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// The application's own check of keys.
#[derive(Clone)]
pub(crate) struct KeyFormat(Arc<Check>);

impl KeyFormat {
    pub(crate) fn new<F, E>(check: F) -> Self
    where
        F: Fn(&str) -> Result<(), E> + Send + Sync + 'static,
        E: Display,
    {
        Self(Arc::new(move |key| check(key).map_err(|why| why.to_string())))
    }

    pub(crate) fn check(&self, key: &str) -> Result<(), String> {
        (self.0)(key)
    }
}

impl fmt::Debug for KeyFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFormat").finish_non_exhaustive()
    }
}

/// The application's own shape of problem responses.
#[derive(Clone)]
pub(crate) struct ProblemResponse(Arc<dyn Fn(ProblemDetails) -> Response + Send + Sync>);

impl ProblemResponse {
    pub(crate) fn new<F, R>(shape: F) -> Self
    where
        F: Fn(ProblemDetails) -> R + Send + Sync + 'static,
        R: IntoResponse,
    {
        Self(Arc::new(move |details| shape(details).into_response()))
    }
}

impl fmt::Debug for ProblemResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProblemResponse").finish_non_exhaustive()
    }
}
