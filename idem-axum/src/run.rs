//! From a guarded request to its response: what the expansion of `#[idempotent]` calls.
//!
//! Owns the order of things after the extractors: key, record key, fingerprint, engine, and the answer to each of the
//! engine's replies. Everything but the first function is compiled once, whatever the number of handlers.

use std::borrow::Cow;
use std::error::Error;
use std::future::{Future, ready};

use axum::http::{HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use idem_core::key::{KeyError, Part};
use idem_core::{
    AfterCrash, BackendError, BackendErrorKind, ClaimResult, Duplicate, Fingerprint, RecordKey, Run, RunAnswer,
};
use tracing::Instrument as _;

use crate::answer::Rules;
use crate::guarded::{Guard, Guarding, Kept};
use crate::identity::{Identity, SerdeForm};
use crate::markers::{self, REPLAYED};
use crate::observe::{Observation, RequestOutcome};
use crate::operation::{Operation, OperationName};
use crate::policy::{Compared, InFlight, OnOutage, Policy, StoredAnswers};
use crate::problem::{self, IdempotencyProblem, ProblemDetails};
use crate::request_body::ComparedBody;
use crate::{fingerprint, key, stored};

/// Runs `handler` once per record, or answers in its place.
///
/// A guard of a direct call lets the handler run unguarded.
pub fn run<I, H>(guard: Guard, operation: &'static Operation, identity: I, handler: H) -> BoxFuture<'static, Response>
where
    I: Into<Identity>,
    H: Future<Output = Response> + Send + 'static,
{
    guarded(guard, operation, identity.into(), handler.boxed())
}

/// Compiled once: of a handler's own there is only its boxed future.
fn guarded(
    guard: Guard,
    operation: &'static Operation,
    identity: Identity,
    handler: BoxFuture<'static, Response>,
) -> BoxFuture<'static, Response> {
    match guard.0 {
        Some(guarding) => guarding.run(operation, identity, handler),
        None => handler,
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

/// What is known of a request before its key is claimed.
enum Beginning {
    Refused(RequestOutcome, Response),
    /// It runs without a claim.
    Unprotected,
    Identified(RecordKey, ComparedBody),
    /// What is left of its body is compared too.
    Unread(RecordKey),
}

impl Guarding {
    /// What needs no waiting is done at once, for an `async fn` would have room for all that it is done with.
    fn run(
        self,
        operation: &'static Operation,
        identity: Identity,
        handler: BoxFuture<'static, Response>,
    ) -> BoxFuture<'static, Response> {
        let name = OperationName::of(operation, &self.kept);
        let mut observation = Observation::start(&name, || name.label());
        let span = observation.span();
        let policy = operation.policy.or(self.idempotency.settings().defaults);
        match span.in_scope(|| self.begin(&mut observation, &name, &policy, identity)) {
            Beginning::Identified(record, compared) => self
                .claim(observation, record, compared, operation, handler)
                .instrument(span)
                .boxed(),
            Beginning::Unread(record) => {
                let read = async move {
                    match self.kept.body.read_rest().await {
                        Ok(compared) => self.claim(observation, record, compared, operation, handler).await,
                        Err(unread) => {
                            observation.end(RequestOutcome::BodyRefused);
                            unread.into_response().await
                        }
                    }
                };
                read.instrument(span).boxed()
            }
            Beginning::Unprotected => {
                self.kept.body.leave_to_argument();
                let unprotected = async move {
                    let answer = self.unprotected(&policy, handler).await;
                    observation.end(RequestOutcome::Unprotected);
                    answer
                };
                unprotected.instrument(span).boxed()
            }
            Beginning::Refused(outcome, refusal) => {
                observation.end(outcome);
                ready(refusal).boxed()
            }
        }
    }

    /// Tells who the request is.
    fn begin(
        &self,
        observation: &mut Observation,
        name: &OperationName<'_>,
        policy: &Policy,
        identity: Identity,
    ) -> Beginning {
        let settings = self.idempotency.settings();
        #[cfg(feature = "postgres")]
        if let Some(refusal) = self.kept.transaction.guard(&self.idempotency) {
            return Beginning::Refused(RequestOutcome::NotConfigured, refusal);
        }
        let begun = match self.record(name, policy, &identity) {
            Ok(None) => return Beginning::Unprotected,
            Ok(Some(record)) => {
                observation.identified(&record, settings.key_label);
                self.compared(policy, identity.compared).map(|compared| match compared {
                    Some(compared) => Beginning::Identified(record, compared),
                    None => Beginning::Unread(record),
                })
            }
            Err(refused) => Err(refused),
        };
        begun.unwrap_or_else(|refused| Beginning::Refused(outcome_of(refused.problem), settings.refuse(refused)))
    }

    /// Claims the record, and runs the handler or answers in its place.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` stores its arguments twice")]
    fn claim(
        self,
        observation: Observation,
        record: RecordKey,
        compared: ComparedBody,
        operation: &'static Operation,
        handler: BoxFuture<'static, Response>,
    ) -> impl Future<Output = Response> + Send {
        async move {
            let claimed = {
                let defaults = self.idempotency.settings().defaults;
                let policy = operation.policy.or(defaults).durations(operation.ttl);
                let engine = self.idempotency.engine();
                engine.claim(&record, compared.fingerprint, &policy).await
            };
            let policy = operation.policy.or(self.idempotency.settings().defaults);
            let rules = self.rules(&policy, compared.is_incomplete);
            self.claimed(claimed, observation, &record, &policy, rules, handler)
                .await
        }
    }

    /// What comes of a claim.
    ///
    /// Put together before it is awaited, so that what is only looked at needs no room meanwhile.
    fn claimed(
        self,
        claimed: Result<ClaimResult, BackendError>,
        observation: Observation,
        record: &RecordKey,
        policy: &Policy,
        rules: Rules,
        handler: BoxFuture<'static, Response>,
    ) -> impl Future<Output = Response> + Send + use<> {
        let answer = match claimed {
            Ok(ClaimResult::Run(run)) => {
                let executing = self.execute(observation, run, record, rules, handler);
                return executing.map(move |executed| self.executed(executed)).left_future();
            }
            Ok(ClaimResult::Duplicate { duplicate, waited }) => {
                let (outcome, answer) = self.duplicate(record, policy, duplicate, waited);
                observation.end(outcome);
                answer
            }
            // A record that cannot be read is there all the same (IDEM-15).
            Err(error) if policy.on_outage() == OnOutage::Run && error.kind() != BackendErrorKind::Unreadable => {
                tracing::error!(
                    key = %record.shown(),
                    error = &error as &dyn Error,
                    "the key cannot be checked; running unprotected, as the handler's `on_outage` says"
                );
                let policy = *policy;
                let unprotected = async move {
                    let answer = self.unprotected(&policy, handler).await;
                    observation.end(RequestOutcome::Unprotected);
                    not_stored(answer)
                };
                return unprotected.boxed().left_future().right_future();
            }
            Err(error) => {
                observation.end(RequestOutcome::BackendUnavailable);
                self.unavailable(record, &error)
            }
        };
        ready(answer).right_future().right_future()
    }

    /// Runs the handler under its claim.
    fn execute(
        &self,
        mut observation: Observation,
        run: Run,
        record: &RecordKey,
        rules: Rules,
        handler: BoxFuture<'static, Response>,
    ) -> impl Future<Output = RunAnswer<Response>> + Send + use<> {
        self.kept.execution.begin(record, run.claim());
        observation.runs(run.claim().attempt);
        #[cfg(feature = "postgres")]
        let finished = self
            .kept
            .transaction
            .clone()
            .join(handler, rules, record.clone(), run.claim().clone());
        #[cfg(not(feature = "postgres"))]
        let finished = handler.map(move |response| crate::answer::finish(response, &rules));
        run.run(finished, |ended| observation.ran(ended))
    }

    /// The record of this request; none where it needs none and has no key.
    fn record(
        &self,
        operation: &OperationName<'_>,
        policy: &Policy,
        identity: &Identity,
    ) -> Result<Option<RecordKey>, ProblemDetails> {
        let record = match &identity.key {
            Some(natural) => RecordKey::new(operation, &identity.scope, natural),
            None => match self.key(policy)? {
                Some(key) => RecordKey::of(operation, &identity.scope, &key),
                None => return Ok(None),
            },
        };
        match record {
            Ok(record) if self.idempotency.settings().hashed_keys => Ok(Some(record.hashed())),
            Ok(record) => Ok(Some(record)),
            Err(error) if error.part() == Part::Key || error.is_too_long() || self.is_clients(&error) => {
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
    fn key(&self, policy: &Policy) -> Result<Option<Cow<'_, str>>, ProblemDetails> {
        let settings = self.idempotency.settings();
        let invalid = || self.problem(IdempotencyProblem::KeyInvalid);
        let key = key::from_lines(self.kept.key_lines.named(policy.header()), settings.strict_keys)
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

    /// Whether a scope is empty because of what the client sent: it is made of the last argument, which has read the body.
    fn is_clients(&self, error: &KeyError) -> bool {
        let is_empty_scope = error.part() == Part::Scope && error.is_empty();
        is_empty_scope && self.kept.is_scoped_by_argument && self.kept.body.was_read_by_argument()
    }

    /// What tells this request from another one under its key; nothing yet where some of its body is still to be read.
    fn compared(&self, policy: &Policy, value: Option<SerdeForm>) -> Result<Option<ComparedBody>, ProblemDetails> {
        let Kept {
            method,
            uri,
            path_parameters,
            body,
            ..
        } = &*self.kept;
        let fingerprint = match (value, policy.fingerprint()) {
            (None, Compared::Request) => return Ok(body.compared()),
            (None, Compared::Nothing) => Fingerprint::NONE,
            (Some(SerdeForm(Ok(value))), _) => fingerprint::of_value(method, uri, path_parameters.as_ref(), value),
            (Some(SerdeForm(Err(error))), _) => {
                // Its text is the application's and may have line breaks, so it is logged as a quotation.
                tracing::error!(
                    error = ?error.to_string(),
                    "the `fingerprint` of an #[idempotent] handler has no serde form; the request did not run"
                );
                return Err(self.problem(IdempotencyProblem::NotConfigured));
            }
        };
        body.leave_to_argument();
        Ok(Some(ComparedBody {
            fingerprint,
            is_incomplete: false,
        }))
    }

    fn rules(&self, policy: &Policy, is_incomplete: bool) -> Rules {
        Rules {
            // An answer to half a request is not the answer to it, unless the handler says that it is done.
            stored: if is_incomplete {
                StoredAnswers::Success
            } else {
                policy.store()
            },
            refuses_reruns: policy.after_crash == Some(AfterCrash::Refuse),
            max_response: policy.max_response(),
            unstored_headers: self.idempotency.settings().unstored_headers.clone(),
            to_head: self.kept.method == Method::HEAD,
        }
    }

    /// Runs a handler that has no claim. What it does in a transaction ends as its policy says.
    #[cfg(feature = "postgres")]
    async fn unprotected(&self, policy: &Policy, handler: BoxFuture<'static, Response>) -> Response {
        self.kept.execution.begin_unprotected();
        let handler = handler.map(markers::taken_off);
        let deadline = self.idempotency.engine().deadline();
        self.kept
            .transaction
            .clone()
            .alone(handler, policy.store(), deadline)
            .await
    }

    #[cfg(not(feature = "postgres"))]
    async fn unprotected(&self, _: &Policy, handler: BoxFuture<'static, Response>) -> Response {
        self.kept.execution.begin_unprotected();
        handler.map(markers::taken_off).await
    }

    fn executed(&self, executed: RunAnswer<Response>) -> Response {
        match executed {
            RunAnswer::Answer { answer, recorded: true } => answer,
            RunAnswer::Answer {
                answer,
                recorded: false,
            } => not_stored(answer),
            RunAnswer::Superseded => {
                let detail = "Another attempt has taken this request over, and what this one did in the database was undone; \
                              ask again for the other one's answer.";
                let refused = self.problem(IdempotencyProblem::InFlight).with_detail(detail);
                self.idempotency.settings().refuse(refused)
            }
            RunAnswer::RolledBack { may_pass } => self
                .idempotency
                .settings()
                .problem(IdempotencyProblem::RolledBack { may_pass }),
            RunAnswer::NotCommitted => self.idempotency.settings().problem(IdempotencyProblem::NotCommitted),
            RunAnswer::Panicked => problem::panicked(),
        }
    }

    fn duplicate(
        &self,
        record: &RecordKey,
        policy: &Policy,
        duplicate: Duplicate,
        waited: bool,
    ) -> (RequestOutcome, Response) {
        let settings = self.idempotency.settings();
        let problem = match duplicate {
            Duplicate::Replay(payload) => {
                let Some(mut stored) = stored::decode(payload) else {
                    let context = "its payload is no response of this version";
                    let error = BackendError::new(BackendErrorKind::Unreadable, context);
                    return (RequestOutcome::BackendUnavailable, self.unavailable(record, &error));
                };
                stored.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
                let outcome = if waited {
                    RequestOutcome::Waited
                } else {
                    RequestOutcome::Replayed
                };
                return (outcome, stored);
            }
            Duplicate::InFlight(retry_after) if policy.in_flight() == InFlight::Accept => {
                return (RequestOutcome::Accepted, problem::accepted(retry_after));
            }
            Duplicate::InFlight(retry_after) => {
                let in_flight = self.problem(IdempotencyProblem::InFlight);
                let refusal = settings.refuse(in_flight.with_retry_after(retry_after));
                return (RequestOutcome::InFlight, refusal);
            }
            Duplicate::NotStored => IdempotencyProblem::ResponseNotStored,
            Duplicate::Mismatch => IdempotencyProblem::KeyReused,
            Duplicate::OutcomeUnknown => IdempotencyProblem::OutcomeUnknown,
        };
        (outcome_of(problem), settings.problem(problem))
    }

    fn unavailable(&self, record: &RecordKey, error: &BackendError) -> Response {
        tracing::error!(key = %record.shown(), error = error as &dyn Error, "refusing a request whose key cannot be checked");
        self.idempotency
            .settings()
            .problem(IdempotencyProblem::BackendUnavailable)
    }

    fn problem(&self, problem: IdempotencyProblem) -> ProblemDetails {
        ProblemDetails::new(problem, self.idempotency.settings().documentation.as_deref())
    }
}

/// What a request came to that was refused.
fn outcome_of(problem: IdempotencyProblem) -> RequestOutcome {
    match problem {
        IdempotencyProblem::KeyMissing => RequestOutcome::KeyMissing,
        IdempotencyProblem::KeyInvalid => RequestOutcome::KeyInvalid,
        IdempotencyProblem::KeyReused => RequestOutcome::Mismatch,
        IdempotencyProblem::InFlight => RequestOutcome::InFlight,
        IdempotencyProblem::OutcomeUnknown => RequestOutcome::OutcomeUnknown,
        IdempotencyProblem::ResponseNotStored => RequestOutcome::ResponseNotStored,
        IdempotencyProblem::BackendUnavailable => RequestOutcome::BackendUnavailable,
        IdempotencyProblem::RolledBack { .. } => RequestOutcome::RolledBack,
        IdempotencyProblem::NotCommitted => RequestOutcome::NotCommitted,
        IdempotencyProblem::NotConfigured => RequestOutcome::NotConfigured,
    }
}

/// Tells the client that its answer could not be stored, so that a retry may run again.
fn not_stored(mut answer: Response) -> Response {
    markers::mark_not_stored(answer.headers_mut());
    answer
}
