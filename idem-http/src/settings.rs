//! What an application sets once for all its operations.
//!
//! Owns the settings that concern HTTP, and the two functions of the application's own among them: what a key looks like,
//! and what a problem's response looks like.

use std::fmt::{self, Display};
use std::sync::Arc;

use http::Response;
use http::header::HeaderName;
use idem_core::Fingerprint;

use crate::body::Body;
use crate::fingerprint::FingerprintKey;
use crate::policy::Policy;
use crate::problem::{IdempotencyProblem, ProblemDetails};

/// What holds for all operations of an application.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The options of operations that leave them open.
    pub defaults: Policy,
    /// The page that documents the API's use of idempotency keys.
    pub documentation: Option<Arc<str>>,
    /// Keys have to be RFC 9651 Strings.
    pub strict_keys: bool,
    /// What happens to a request that is not to run.
    pub mode: Mode,
    /// Scopes and keys are shown as hashes.
    pub hashed_keys: bool,
    /// Requests are counted by key as well.
    pub key_label: bool,
    /// What a key looks like, beyond its syntax.
    pub key_format: Option<KeyFormat>,
    /// Fingerprints are made with this key.
    pub fingerprint_key: Option<FingerprintKey>,
    /// Headers of answers that are not stored.
    pub unstored_headers: Arc<[HeaderName]>,
    /// What problem responses look like.
    pub problem_response: Option<ProblemResponse>,
}

/// What happens to a request that is not to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is answered in the place of its handler.
    #[default]
    Guarding,
    /// It is counted, and its handler runs and answers the client.
    Observing,
}

impl Settings {
    /// Whether every handler runs, whatever is known of its request.
    #[must_use]
    pub fn is_observing(&self) -> bool {
        self.mode == Mode::Observing
    }

    /// A problem, as its client is told of it.
    #[must_use]
    pub fn details(&self, problem: IdempotencyProblem) -> ProblemDetails {
        ProblemDetails::new(problem, self.documentation.as_deref())
    }

    /// The response to a request that is refused for one of the reasons there are.
    #[must_use]
    pub fn problem(&self, problem: IdempotencyProblem) -> Response<Body> {
        self.refuse(self.details(problem))
    }

    /// The response to a request that ran without a claim, and of which it is not known whether its effects were committed.
    #[must_use]
    pub fn not_committed_unprotected(&self) -> Response<Body> {
        self.refuse(self.details(IdempotencyProblem::NotCommitted).of_unprotected())
    }

    /// A fingerprint, as it is stored and compared.
    #[must_use]
    pub fn fingerprint(&self, fingerprint: Fingerprint) -> Fingerprint {
        match &self.fingerprint_key {
            Some(key) => key.keyed(fingerprint),
            None => fingerprint,
        }
    }

    /// The response to a request that is refused.
    #[must_use]
    pub fn refuse(&self, details: ProblemDetails) -> Response<Body> {
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
pub struct KeyFormat(Arc<Check>);

impl KeyFormat {
    /// By a function whose error is for the client.
    pub fn new<F, E>(check: F) -> Self
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
pub struct ProblemResponse(Arc<dyn Fn(ProblemDetails) -> Response<Body> + Send + Sync>);

impl ProblemResponse {
    /// By a function of the application's own.
    pub fn new(shape: impl Fn(ProblemDetails) -> Response<Body> + Send + Sync + 'static) -> Self {
        Self(Arc::new(shape))
    }
}

impl fmt::Debug for ProblemResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProblemResponse").finish_non_exhaustive()
    }
}
