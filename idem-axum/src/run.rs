//! From a guarded request to its response: what the expansion of `#[idempotent]` calls.
//!
//! Owns the order of things after the extractors: key, record key, fingerprint, engine, and the answer to each of the
//! engine's replies. Everything but the first function is compiled once, whatever the number of handlers.

use std::borrow::Cow;
use std::error::Error;
use std::future::Future;

use axum::http::HeaderValue;
use axum::response::Response;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use idem_core::key::Part;
use idem_core::{BackendError, BackendErrorKind, Claimed, Duplicate, Executed, IdempotencyKey, RecordKey, Scope};

use crate::guarded::{Guard, Guarding};
use crate::policy::Policy;
use crate::problem::{self, Answer, IdempotencyProblem};
use crate::{answer, fingerprint, key, stored};

/// Runs `handler` once per record, or answers in its place.
///
/// `key` is the natural key, where the attribute has one. A guard of a direct call lets the handler run unguarded.
pub async fn run<H>(
    guard: Guard,
    policy: &'static Policy,
    scope: Scope,
    key: Option<IdempotencyKey>,
    handler: H,
) -> Response
where
    H: Future<Output = Response> + Send + 'static,
{
    match guard.0 {
        Some(guarding) => guarding.run(policy, &scope, key, handler.boxed()).await,
        None => handler.await,
    }
}

impl Guarding {
    async fn run(
        self,
        policy: &Policy,
        scope: &Scope,
        key: Option<IdempotencyKey>,
        handler: BoxFuture<'static, Response>,
    ) -> Response {
        let key = match key {
            Some(natural) => natural,
            None => match key::from_headers(&self.headers, policy.header()) {
                Ok(Some(key)) => IdempotencyKey::of(&key),
                Ok(None) if !policy.required() => return handler.await,
                Ok(None) => {
                    let detail = format!(
                        "This operation needs an idempotency key in the header `{}`.",
                        policy.header()
                    );
                    return self
                        .problem(IdempotencyProblem::KeyMissing)
                        .with_detail(detail)
                        .into_response();
                }
                Err(malformed) => {
                    let answer = self.problem(IdempotencyProblem::KeyInvalid);
                    return answer.with_detail(malformed.detail()).into_response();
                }
            },
        };
        let record = match RecordKey::new(&self.operation(policy), scope, &key) {
            Ok(record) => record,
            Err(error) if error.part() == Part::Key || error.is_too_long() => {
                let detail = format!("The request cannot be identified: {error}.");
                return self
                    .problem(IdempotencyProblem::KeyInvalid)
                    .with_detail(detail)
                    .into_response();
            }
            Err(error) => {
                tracing::error!(%error, "an #[idempotent] handler has no usable record key; the request did not run");
                return self.problem(IdempotencyProblem::NotConfigured).into_response();
            }
        };
        let fingerprint = fingerprint::of(&self.method, &self.uri, &self.headers, &self.body);
        let engine = self.idempotency.engine();
        match engine.claim(&record, fingerprint, policy.durations()).await {
            Ok(Claimed::Run(run)) => {
                self.execution.fill(&record, run.claim());
                Self::executed(run.run(handler.map(answer::finish)).await)
            }
            Ok(Claimed::Duplicate(Duplicate::InFlight)) if policy.accepts() => problem::accepted(),
            Ok(Claimed::Duplicate(duplicate)) => self.duplicate(&record, duplicate),
            // A record that cannot be read is there all the same (IDEM-15).
            Err(error) if policy.runs_in_outage() && error.kind() != BackendErrorKind::Unreadable => {
                tracing::error!(
                    key = %record,
                    error = &error as &dyn Error,
                    "the key cannot be checked; running unprotected, as the handler's `on_outage` says"
                );
                not_stored(handler.await)
            }
            Err(error) => self.unavailable(&record, &error),
        }
    }

    /// The identity of the handler in stored keys.
    fn operation(&self, policy: &Policy) -> Cow<'static, str> {
        let path = || {
            self.matched_path
                .as_ref()
                .map_or_else(|| self.uri.path(), |path| path.as_str())
        };
        match policy.name() {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(format!("{} {}", self.method, path())),
        }
    }

    fn executed(executed: Executed<Response>) -> Response {
        match executed {
            Executed::Answer { answer, recorded: true } => answer,
            Executed::Answer {
                answer,
                recorded: false,
            } => not_stored(answer),
            Executed::Panicked => problem::panicked(),
        }
    }

    fn duplicate(&self, record: &RecordKey, duplicate: Duplicate) -> Response {
        let problem = match duplicate {
            Duplicate::Replay(payload) => {
                let Some(mut stored) = stored::decode(payload) else {
                    let context = "its payload is no response of this version";
                    return self.unavailable(record, &BackendError::new(BackendErrorKind::Unreadable, context));
                };
                stored
                    .headers_mut()
                    .insert("idempotent-replayed", HeaderValue::from_static("true"));
                return stored;
            }
            Duplicate::NotStored => IdempotencyProblem::ResponseNotStored,
            Duplicate::Mismatch => IdempotencyProblem::KeyReused,
            Duplicate::InFlight => IdempotencyProblem::InFlight,
            Duplicate::OutcomeUnknown => IdempotencyProblem::OutcomeUnknown,
        };
        self.problem(problem).into_response()
    }

    fn unavailable(&self, record: &RecordKey, error: &BackendError) -> Response {
        tracing::error!(key = %record, error = error as &dyn Error, "refusing a request whose key cannot be checked");
        self.problem(IdempotencyProblem::BackendUnavailable).into_response()
    }

    fn problem(&self, problem: IdempotencyProblem) -> Answer<'_> {
        Answer::new(problem, self.idempotency.documentation())
    }
}

/// Tells the client that its answer could not be stored, so that a retry may run again.
fn not_stored(mut answer: Response) -> Response {
    answer
        .headers_mut()
        .insert("idempotency-stored", HeaderValue::from_static("false"));
    answer
}
