//! From an identified request to its answer.
//!
//! Owns the order: claim the record, then run the handler under the claim or answer in its place, and what the client is told
//! in each case. Does not own where a request comes from: an attribute's arguments, or a layer.
//!
//! | the claim | the handler | the client gets |
//! |---|---|---|
//! | is acquired | runs | its answer, by the engine's [`RunAnswer`] |
//! | is refused, as too many handlers run | does not run | 503 `too-busy` |
//! | is a duplicate's | does not run | a replay, or the problem of its [`Duplicate`] |
//! | fails, `on_outage = "refuse"` | does not run | 503 `backend-unavailable` |
//! | fails, `on_outage = "run"` | runs without a claim | its answer, marked as not stored |
//!
//! Where the service only observes, `observing` has another table.

mod observing;

use std::error::Error;
use std::future::{Future, ready};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::{HeaderValue, Response};
use idem_core::{
    AfterCrash, BackendError, BackendErrorKind, ClaimResult, Duplicate, Engine, Fingerprint, HandlerResult, RecordKey,
    Run, RunAnswer,
};

use crate::answer::AnswerRules;
use crate::body::{HandlerBody, ResponseBody, made};
use crate::markers::{self, REPLAYED};
use crate::observe::{Observation, RequestOutcome};
use crate::operation::Operation;
use crate::policy::{InFlight, OnOutage, Policy, StoredAnswers};
use crate::problem::{self, IdempotencyProblem};
use crate::settings::Settings;
use crate::stored;

pub use self::observing::observed_result;

/// What an application sets up once: an engine, and the settings that concern HTTP.
pub trait Setup: Clone + Send + Sync + 'static {
    /// Where records are.
    fn engine(&self) -> &Engine;

    /// What holds for all operations.
    fn settings(&self) -> &Arc<Settings>;
}

/// A handler, as this module runs it.
pub trait Handler<B: HandlerBody>: Send + 'static {
    /// Runs under the claim of `run`, from which it may take [`steps`](Run::steps), and prepares the answer by `rules`.
    fn run(
        self,
        record: &RecordKey,
        run: &mut Run,
        rules: AnswerRules,
    ) -> impl Future<Output = HandlerResult<Response<ResponseBody<B>>>> + Send + 'static + use<B, Self>;

    /// Runs under a claim whose outcome the client must not notice: as without a claim, but that the handler may learn of the
    /// claim. Prepares the answer by `rules`, with [`observed_result`].
    fn run_observed(
        self,
        record: &RecordKey,
        run: &mut Run,
        rules: AnswerRules,
        deadline: Duration,
    ) -> impl Future<Output = HandlerResult<Response<ResponseBody<B>>>> + Send + 'static + use<B, Self>;

    /// Runs without a claim. Calls to the backend that it still makes have this `deadline`.
    fn run_unprotected(
        self,
        policy: &Policy,
        deadline: Duration,
    ) -> impl Future<Output = Response<ResponseBody<B>>> + Send + 'static + use<B, Self>;
}

/// What tells a request from another one under its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestIdentity {
    /// Of what is compared.
    pub fingerprint: Fingerprint,
    /// The body failed or was too large, so that the fingerprint is of a part of it.
    pub is_incomplete: bool,
}

/// A request to an operation that is guarded. `O` is the operation, behind any kind of pointer.
#[derive(Debug)]
pub struct GuardedRequest<S, O> {
    /// What guards it.
    pub setup: S,
    /// What it asks for.
    pub operation: O,
    /// Whether its method is HEAD.
    pub is_head: bool,
}

impl<S, O> GuardedRequest<S, O>
where
    S: Setup,
    O: Deref<Target = Operation> + Send + Sync + 'static,
{
    /// The operation's options, and the application's defaults where the operation leaves an option open.
    pub fn policy(&self) -> Policy {
        self.operation.policy.or(self.setup.settings().defaults)
    }

    /// Claims the record, and runs the handler or answers in its place.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` stores its arguments twice")]
    pub fn answer<B: HandlerBody>(
        self,
        observation: Observation,
        record: RecordKey,
        identity: RequestIdentity,
        handler: impl Handler<B>,
    ) -> impl Future<Output = Response<ResponseBody<B>>> + Send {
        async move {
            if self.setup.settings().is_observing() {
                return self.observe(observation, record, identity, handler).boxed().await;
            }
            let claimed = {
                let policy = self.policy().durations(self.operation.ttl);
                let fingerprint = self.setup.settings().fingerprint(identity.fingerprint);
                self.setup.engine().claim(&record, fingerprint, &policy).await
            };
            self.answer_claim(claimed, observation, &record, identity.is_incomplete, handler)
                .await
        }
    }

    /// Runs the handler without a claim.
    pub fn answer_unprotected<B: HandlerBody, H: Handler<B>>(
        &self,
        handler: H,
    ) -> impl Future<Output = Response<ResponseBody<B>>> + Send + 'static + use<B, S, O, H> {
        handler.run_unprotected(&self.policy(), self.setup.engine().deadline())
    }

    /// Answers by what came of a claim.
    ///
    /// A chain of combinators, so that values that are only looked at are not stored in the future while the handler runs.
    fn answer_claim<B: HandlerBody, H: Handler<B>>(
        self,
        claimed: Result<ClaimResult, BackendError>,
        observation: Observation,
        record: &RecordKey,
        is_incomplete: bool,
        handler: H,
    ) -> impl Future<Output = Response<ResponseBody<B>>> + Send + use<B, S, O, H> {
        let answer = match claimed {
            Ok(ClaimResult::Run(run)) => {
                let rules = self.rules(is_incomplete);
                let running = run_under(run, observation, record, rules, handler);
                return running
                    .map(move |answer| answer_of_run(self.setup.settings(), answer))
                    .left_future();
            }
            Ok(ClaimResult::Duplicate { duplicate, waited }) => {
                let (outcome, answer) = self.answer_duplicate(record, duplicate, waited);
                observation.end(outcome);
                answer
            }
            Ok(ClaimResult::TooBusy) => {
                observation.end(RequestOutcome::TooBusy);
                made(self.setup.settings().problem(IdempotencyProblem::TooBusy))
            }
            // A record that cannot be read is there all the same (IDEM-15).
            Err(error) if self.policy().on_outage() == OnOutage::Run && error.leaves_record_unknown() => {
                tracing::error!(
                    key = %record.shown(),
                    error = &error as &dyn Error,
                    "the key cannot be checked; running unprotected, as `on_outage` says"
                );
                let unprotected = self.answer_unprotected(handler).map(|answer| {
                    observation.end(RequestOutcome::Unprotected);
                    not_stored(answer)
                });
                return unprotected.boxed().left_future().right_future();
            }
            Err(error) => {
                observation.end(RequestOutcome::BackendUnavailable);
                refuse_unavailable(self.setup.settings(), record, &error)
            }
        };
        ready(answer).right_future().right_future()
    }

    fn rules(&self, is_incomplete: bool) -> AnswerRules {
        let policy = self.policy();
        AnswerRules {
            // An answer to half a request is not the answer to it, unless the handler says that it is done.
            stored: if is_incomplete {
                StoredAnswers::Success
            } else {
                policy.store()
            },
            refuses_reruns: policy.after_crash() == AfterCrash::Refuse,
            max_response: policy.max_response(),
            unstored_headers: self.setup.settings().unstored_headers.clone(),
            to_head: self.is_head,
            passes_verdict: false,
        }
    }

    /// Answers a request whose handler does not run.
    fn answer_duplicate<B>(
        &self,
        record: &RecordKey,
        duplicate: Duplicate,
        waited: bool,
    ) -> (RequestOutcome, Response<ResponseBody<B>>) {
        let settings = self.setup.settings();
        let problem = match duplicate {
            Duplicate::Replay(payload) => {
                let Some(mut stored) = stored::decode(payload) else {
                    let context = "its payload is no response of this version";
                    let error = BackendError::new(BackendErrorKind::Unreadable, context);
                    let answer = refuse_unavailable(settings, record, &error);
                    return (RequestOutcome::BackendUnavailable, answer);
                };
                stored.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
                let outcome = if waited {
                    RequestOutcome::Waited
                } else {
                    RequestOutcome::Replayed
                };
                return (outcome, made(stored));
            }
            Duplicate::InFlight(retry_after) if self.policy().in_flight() == InFlight::Accept => {
                return (RequestOutcome::Accepted, made(problem::accepted(retry_after)));
            }
            Duplicate::InFlight(retry_after) => {
                let in_flight = settings.details(IdempotencyProblem::InFlight);
                let refusal = settings.refuse(in_flight.with_retry_after(retry_after));
                return (RequestOutcome::InFlight, made(refusal));
            }
            Duplicate::NotStored => IdempotencyProblem::ResponseNotStored,
            Duplicate::Mismatch => IdempotencyProblem::KeyReused,
            Duplicate::OutcomeUnknown => IdempotencyProblem::OutcomeUnknown,
        };
        (RequestOutcome::from(problem), made(settings.problem(problem)))
    }
}

/// Runs the handler under its claim.
fn run_under<B: HandlerBody, H: Handler<B>>(
    mut run: Run,
    mut observation: Observation,
    record: &RecordKey,
    rules: AnswerRules,
    handler: H,
) -> impl Future<Output = RunAnswer<Response<ResponseBody<B>>>> + Send + use<B, H> {
    observation.runs(run.claim().attempt);
    let handling = handler.run(record, &mut run, rules);
    run.run(handling, |outcome| observation.ran(outcome))
}

/// Answers by what a run came to.
fn answer_of_run<B>(settings: &Settings, answer: RunAnswer<Response<ResponseBody<B>>>) -> Response<ResponseBody<B>> {
    let problem = match answer {
        RunAnswer::Answer { answer, recorded: true } => return answer,
        RunAnswer::Answer {
            answer,
            recorded: false,
        } => return not_stored(answer),
        RunAnswer::Panicked => return made(problem::panicked()),
        RunAnswer::Superseded => {
            let detail = "Another attempt has taken this request over, and what this one did in the database was undone; \
                          ask again for the other one's answer.";
            let refused = settings.details(IdempotencyProblem::InFlight).with_detail(detail);
            return made(settings.refuse(refused));
        }
        RunAnswer::RolledBack { may_pass } => IdempotencyProblem::RolledBack { may_pass },
        RunAnswer::NotCommitted => IdempotencyProblem::NotCommitted,
    };
    made(settings.problem(problem))
}

fn refuse_unavailable<B>(settings: &Settings, record: &RecordKey, error: &BackendError) -> Response<ResponseBody<B>> {
    tracing::error!(key = %record.shown(), error = error as &dyn Error, "refusing a request whose key cannot be checked");
    made(settings.problem(IdempotencyProblem::BackendUnavailable))
}

/// Tells the client that its answer could not be stored, so that a retry may run again.
fn not_stored<B>(mut answer: Response<B>) -> Response<B> {
    markers::mark_not_stored(answer.headers_mut());
    answer
}
