//! From a guarded request to its response: what the expansion of `#[idempotent]` calls.
//!
//! Owns the order of things after the extractors: key, record key, fingerprint, engine, and the answer to each of the
//! engine's replies. Everything but the first function is compiled once, whatever the number of handlers.

use std::borrow::Cow;
use std::error::Error;
use std::future::Future;

use axum::http::{HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use idem_core::key::Part;
use idem_core::{BackendError, BackendErrorKind, Claimed, Duplicate, Executed, Fingerprint, IdempotencyKey, RecordKey};

use crate::answer::Rules;
use crate::guarded::{Buffered, Guard, Guarding};
use crate::identity::{Identity, SerdeForm};
use crate::operation::Operation;
use crate::policy::{Compared, InFlight, OnOutage, Policy};
use crate::problem::{self, IdempotencyProblem, ProblemDetails};
use crate::{fingerprint, key, stored};

/// Runs `handler` once per record, or answers in its place.
///
/// A guard of a direct call lets the handler run unguarded.
pub fn run<I, H>(
    guard: Guard,
    operation: &'static Operation,
    identity: I,
    handler: H,
) -> impl Future<Output = Response> + Send + use<I, H>
where
    I: Into<Identity>,
    H: Future<Output = Response> + Send + 'static,
{
    guarded(guard, operation, identity.into(), handler.boxed())
}

/// Compiled once: of a handler's own there is only its boxed future.
async fn guarded(
    guard: Guard,
    operation: &'static Operation,
    identity: Identity,
    handler: BoxFuture<'static, Response>,
) -> Response {
    match guard.0 {
        Some(guarding) => guarding.run(operation, identity, handler).await,
        None => handler.await,
    }
}

/// Says in our own words what a handler has to return.
#[diagnostic::on_unimplemented(
    message = "a handler answers with a response, and `{Self}` is none",
    label = "this is not `axum::response::IntoResponse`",
    note = "implement `IntoResponse` for it; a `Result` is a response if what is in its `Ok` and in its `Err` are"
)]
pub trait Answer: IntoResponse {}

#[diagnostic::do_not_recommend]
impl<R: IntoResponse> Answer for R {}

/// Spanned on the handler's return type, where a missing implementation is reported.
pub fn into_response<R: Answer>(answer: R) -> Response {
    answer.into_response()
}

/// Says what type an async block has, in a branch that is never taken.
#[must_use]
pub fn never<T>() -> T {
    unreachable!("only its type is of use")
}

impl Guarding {
    async fn run(self, operation: &Operation, identity: Identity, handler: BoxFuture<'static, Response>) -> Response {
        #[cfg(feature = "postgres")]
        if let Some(refused) = self.transaction.guard(&self.idempotency) {
            return refused;
        }
        let policy = operation.policy.or(self.idempotency.settings().defaults);
        let claimed = match self.record(operation, &policy, &identity) {
            Ok(None) => return self.unprotected(&policy, handler).await,
            Ok(Some(record)) => self
                .fingerprint(&policy, identity.compared)
                .map(|fingerprint| (record, fingerprint)),
            Err(refused) => Err(refused),
        };
        let (record, fingerprint) = match claimed {
            Ok(claimed) => claimed,
            Err(refused) => return self.idempotency.settings().refuse(refused),
        };
        let engine = self.idempotency.engine();
        match engine
            .claim(&record, fingerprint, &policy.durations(operation.ttl))
            .await
        {
            Ok(Claimed::Run(run)) => {
                self.execution.fill(&record, run.claim());
                let rules = self.rules(&policy);
                #[cfg(feature = "postgres")]
                let finished = self
                    .transaction
                    .clone()
                    .join(handler, rules, record, run.claim().clone());
                #[cfg(not(feature = "postgres"))]
                let finished = handler.map(move |response| crate::answer::finish(response, &rules));
                self.executed(run.run(finished).await)
            }
            Ok(Claimed::Duplicate(Duplicate::InFlight)) if policy.in_flight() == InFlight::Accept => {
                problem::accepted()
            }
            Ok(Claimed::Duplicate(duplicate)) => self.duplicate(&record, duplicate),
            // A record that cannot be read is there all the same (IDEM-15).
            Err(error) if policy.on_outage() == OnOutage::Run && error.kind() != BackendErrorKind::Unreadable => {
                tracing::error!(
                    key = %record,
                    error = &error as &dyn Error,
                    "the key cannot be checked; running unprotected, as the handler's `on_outage` says"
                );
                not_stored(self.unprotected(&policy, handler).await)
            }
            Err(error) => self.unavailable(&record, &error),
        }
    }

    /// The record of this request; none where it needs none and has no key.
    fn record(
        &self,
        operation: &Operation,
        policy: &Policy,
        identity: &Identity,
    ) -> Result<Option<RecordKey>, ProblemDetails> {
        let key = match &identity.key {
            Some(natural) => natural.clone(),
            None => match self.key(policy)? {
                Some(key) => IdempotencyKey::of(&key),
                None => return Ok(None),
            },
        };
        match RecordKey::new(&self.operation(operation), &identity.scope, &key) {
            Ok(record) => Ok(Some(record)),
            Err(error) if error.part() == Part::Key || error.is_too_long() => {
                let detail = format!("The request cannot be identified: {error}.");
                Err(self.problem(IdempotencyProblem::KeyInvalid).with_detail(detail))
            }
            Err(error) => {
                tracing::error!(%error, "an #[idempotent] handler has no usable record key; the request did not run");
                Err(self.problem(IdempotencyProblem::NotConfigured))
            }
        }
    }

    /// The key in the header, as the application wants it.
    fn key(&self, policy: &Policy) -> Result<Option<String>, ProblemDetails> {
        let settings = self.idempotency.settings();
        let invalid = || self.problem(IdempotencyProblem::KeyInvalid);
        let key = key::from_headers(&self.request.headers, policy.header(), settings.strict_keys)
            .map_err(|malformed| invalid().with_detail(malformed.detail()))?;
        let Some(key) = key else {
            if !policy.required() {
                return Ok(None);
            }
            let header = policy.header();
            let detail = format!("This operation needs an idempotency key in the header `{header}`.");
            return Err(self.problem(IdempotencyProblem::KeyMissing).with_detail(detail));
        };
        match settings.key_format.as_ref().map_or(Ok(()), |format| format.check(&key)) {
            Ok(()) => Ok(Some(key)),
            Err(why) if why.is_empty() => Err(invalid()),
            Err(why) => Err(invalid().with_detail(why)),
        }
    }

    /// What tells this request from another one under its key.
    fn fingerprint(&self, policy: &Policy, compared: Option<SerdeForm>) -> Result<Fingerprint, ProblemDetails> {
        let Buffered {
            method,
            uri,
            headers,
            body,
            ..
        } = &self.request;
        match (compared, policy.fingerprint()) {
            (None, Compared::Request) => Ok(fingerprint::of_request(method, uri, headers, body)),
            (None, Compared::Nothing) => Ok(Fingerprint::NONE),
            (Some(SerdeForm(Ok(value))), _) => Ok(fingerprint::of_value(value)),
            (Some(SerdeForm(Err(error))), _) => {
                // Its text is the application's and may have line breaks, so it is logged as a quotation.
                tracing::error!(
                    error = ?error.to_string(),
                    "the `fingerprint` of an #[idempotent] handler has no serde form; the request did not run"
                );
                Err(self.problem(IdempotencyProblem::NotConfigured))
            }
        }
    }

    fn rules(&self, policy: &Policy) -> Rules {
        Rules {
            stored: policy.store(),
            max_response: policy.max_response(),
            unstored_headers: self.idempotency.settings().unstored_headers.clone(),
            to_head: self.request.method == Method::HEAD,
        }
    }

    /// The identity of the handler in stored keys.
    fn operation(&self, operation: &Operation) -> Cow<'static, str> {
        let Buffered {
            method,
            uri,
            matched_path,
            ..
        } = &self.request;
        let path = || matched_path.as_ref().map_or_else(|| uri.path(), |path| path.as_str());
        match operation.name {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(format!("{method} {}", path())),
        }
    }

    /// Runs a handler that has no claim. What it does in a transaction ends as its policy says.
    #[cfg(feature = "postgres")]
    async fn unprotected(&self, policy: &Policy, handler: BoxFuture<'static, Response>) -> Response {
        self.transaction.clone().alone(handler, policy.store()).await
    }

    #[cfg(not(feature = "postgres"))]
    async fn unprotected(&self, _: &Policy, handler: BoxFuture<'static, Response>) -> Response {
        handler.await
    }

    fn executed(&self, executed: Executed<Response>) -> Response {
        match executed {
            Executed::Answer { answer, recorded: true } => answer,
            Executed::Answer {
                answer,
                recorded: false,
            } => not_stored(answer),
            // Another attempt runs, or has run: a retry gets its answer.
            Executed::Superseded => self.idempotency.settings().problem(IdempotencyProblem::InFlight),
            Executed::NotCommitted => self
                .idempotency
                .settings()
                .problem(IdempotencyProblem::BackendUnavailable),
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
        self.idempotency.settings().problem(problem)
    }

    fn unavailable(&self, record: &RecordKey, error: &BackendError) -> Response {
        tracing::error!(key = %record, error = error as &dyn Error, "refusing a request whose key cannot be checked");
        self.idempotency
            .settings()
            .problem(IdempotencyProblem::BackendUnavailable)
    }

    fn problem(&self, problem: IdempotencyProblem) -> ProblemDetails {
        ProblemDetails::new(problem, self.idempotency.settings().documentation.as_deref())
    }
}

/// Tells the client that its answer could not be stored, so that a retry may run again.
fn not_stored(mut answer: Response) -> Response {
    answer
        .headers_mut()
        .insert("idempotency-stored", HeaderValue::from_static("false"));
    answer
}
