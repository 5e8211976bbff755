//! From an identified request to its handler's own answer, where a service only observes.
//!
//! Owns what differs from a request that is guarded: every handler runs, its client gets what it would get without idem, and the
//! outcome says what idem would have done.
//!
//! | the claim | the handler | the outcome |
//! |---|---|---|
//! | is acquired | runs under it, and its answer is recorded | that of the run |
//! | is a duplicate's | runs without a claim | what would have been answered |
//! | is refused, as too many handlers run | runs without a claim | `too_busy` |
//! | fails | runs without a claim | `backend_unavailable`, or `unprotected` under `on_outage = "run"` |

use std::any::Any;
use std::error::Error;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::Response;
use idem_core::{ClaimResult, Duplicate, HandlerResult, RecordKey, RecordOutcome, Run, RunAnswer};

use super::{GuardedRequest, Handler, RequestIdentity, Setup, answer_of_run};
use crate::answer::{self, AnswerRules};
use crate::body::{HandlerBody, ResponseBody};
use crate::markers;
use crate::observe::{Observation, RequestOutcome};
use crate::operation::Operation;
use crate::policy::{InFlight, OnOutage};
use crate::stored;

/// What a handler has panicked with.
type Panic = Box<dyn Any + Send>;

/// The result of a handler whose client gets its answer, whatever is recorded.
pub fn observed_result<B: HandlerBody>(
    answer: Response<ResponseBody<B>>,
    rules: &AnswerRules,
) -> HandlerResult<Response<ResponseBody<B>>> {
    let (head, body) = answer.into_parts();
    match body.into_own() {
        Ok(own) => answer::finish(Response::from_parts(head, own), rules),
        // It says that a transaction was not committed.
        Err(made) => HandlerResult::Whole {
            answer: Response::from_parts(head, made),
            outcome: RecordOutcome::Release,
        },
    }
}

impl<S, O> GuardedRequest<S, O>
where
    S: Setup,
    O: std::ops::Deref<Target = Operation> + Send + Sync + 'static,
{
    /// Claims the record to learn what idem would do, and runs the handler.
    pub(super) async fn observe<B: HandlerBody, H: Handler<B>>(
        self,
        observation: Observation,
        record: RecordKey,
        identity: RequestIdentity,
        handler: H,
    ) -> Response<ResponseBody<B>> {
        let (settings, engine, policy) = (self.setup.settings(), self.setup.engine(), self.policy());
        let durations = policy.with_in_flight(InFlight::Reject).durations(self.operation.ttl);
        let fingerprint = settings.fingerprint(identity.fingerprint);
        let outcome = match engine.claim(&record, fingerprint, &durations).await {
            Ok(ClaimResult::Run(run)) => {
                let rules = self.rules(identity.is_incomplete);
                let running = run_observed(run, observation, &record, (rules, engine.deadline()), handler);
                let (answer, panic) = running.await;
                return self.answer_observed(answer, panic);
            }
            Ok(ClaimResult::Duplicate { duplicate, .. }) => outcome_of(duplicate, policy.in_flight()),
            Ok(ClaimResult::TooBusy) => RequestOutcome::TooBusy,
            Err(error) => {
                let error_of_claim = &error as &dyn Error;
                tracing::info!(key = %record.shown(), error = error_of_claim, "the key of an observed request cannot be checked");
                if policy.on_outage() == OnOutage::Run && error.leaves_record_unknown() {
                    RequestOutcome::Unprotected
                } else {
                    RequestOutcome::BackendUnavailable
                }
            }
        };
        observation.end(outcome);
        self.answer_unprotected(handler).await
    }

    /// Answers as the handler did: with its answer, or with its panic.
    fn answer_observed<B>(
        &self,
        answer: RunAnswer<Response<ResponseBody<B>>>,
        panic: Option<Panic>,
    ) -> Response<ResponseBody<B>> {
        match (answer, panic) {
            (RunAnswer::Answer { mut answer, .. }, _) => {
                answer.headers_mut().remove(markers::NOT_STORED);
                answer
            }
            // In the request's own task, as the handler would have without idem. The hook has reported it already.
            (RunAnswer::Panicked, Some(panic)) => resume_unwind(panic),
            (answer, _) => answer_of_run(self.setup.settings(), answer),
        }
    }
}

/// Runs the handler under its claim, and returns what it has panicked with beside its answer.
fn run_observed<B: HandlerBody, H: Handler<B>>(
    mut run: Run,
    mut observation: Observation,
    record: &RecordKey,
    (rules, deadline): (AnswerRules, Duration),
    handler: H,
) -> impl Future<Output = (RunAnswer<Response<ResponseBody<B>>>, Option<Panic>)> + Send + use<B, H> {
    observation.runs(run.claim().attempt);
    let panicked = Arc::<Mutex<Option<Panic>>>::default();
    let caught = panicked.clone();
    let handling = handler.run_observed(record, &mut run, rules, deadline);
    let handling = AssertUnwindSafe(handling).catch_unwind().map(move |result| {
        result.unwrap_or_else(|panic| {
            *caught.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            // The engine takes note of it, and keeps what it catches.
            resume_unwind(Box::new("the handler panicked"))
        })
    });
    run.run(handling, |outcome| observation.ran(outcome))
        .map(move |answer| (answer, panicked.lock().unwrap_or_else(PoisonError::into_inner).take()))
}

/// The outcome that a duplicate would have had.
fn outcome_of(duplicate: Duplicate, in_flight: InFlight) -> RequestOutcome {
    match duplicate {
        Duplicate::Replay(payload) => match stored::decode(payload) {
            Some(_stored) => RequestOutcome::Replayed,
            None => RequestOutcome::BackendUnavailable,
        },
        Duplicate::InFlight(_) if in_flight == InFlight::Accept => RequestOutcome::Accepted,
        Duplicate::InFlight(_) => RequestOutcome::InFlight,
        Duplicate::NotStored => RequestOutcome::ResponseNotStored,
        Duplicate::Mismatch => RequestOutcome::Mismatch,
        Duplicate::OutcomeUnknown => RequestOutcome::OutcomeUnknown,
    }
}
