//! Running a handler and recording its outcome.
//!
//! Owns the order in which the client and the backend learn how a handler ended. Does not own how an outcome is recorded:
//! [`recording`](super::recording).
//!
//! | the handler's future | the client gets | the record | when the client gets it |
//! |---|---|---|---|
//! | resolves to [`HandlerResult::Whole`] | its answer | the outcome that came with the answer | once it is recorded, or its first tries have failed |
//! | resolves to [`HandlerResult::Streaming`] | its answer | the outcome of the stream | at once; its last byte once the outcome is recorded |
//! | resolves to [`HandlerResult::Joint`] | its answer, if the commit succeeds | what the commit wrote | after the commit |
//! | panics, [`AfterCrash::Rerun`] | [`RunAnswer::Panicked`] | released | once it is released |
//! | panics, [`AfterCrash::Refuse`] | [`RunAnswer::Panicked`] | [`Completion::Unknown`] | once it is recorded |
//!
//! A record that has steps is parked where it would be released.
//!
//! Work that can wait until the client has its answer is returned as [`RemainingWork`].

mod log;

use std::future::{Future, ready};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument as _, Span};

use super::attended::RemainingWork;
use super::claimed::OnRenewal;
use super::permits::Permit;
use super::renewals::Renewals;
use super::{Commit, CommitOutcome, Engine, HandlerResult, RecordOutcome, RunAnswer, RunOutcome, StreamedOutcome};
use crate::observe::{self, Call, InFlight, LongRun, Timing};
use crate::steps::{Attempt, Steps};
use crate::{AfterCrash, BackendError, BackendErrorKind, Claim, Completion, Fenced, RecordKey};

/// After this many renewals, a run is long enough for a line in the log. The next lines follow at each doubling.
const LONG_RUN: u32 = 10;

/// An acquired claim and the settings of its run.
///
/// It has no `Drop`, because the claim of a started handler ends by its outcome or by its lease (IDEM-6).
pub(super) struct Work {
    pub(super) engine: Engine,
    pub(super) key: RecordKey,
    pub(super) claim: Claim,
    pub(super) after_crash: AfterCrash,
    /// How long the claim is renewed while the handler runs.
    pub(super) renewal_limit: Option<Duration>,
    /// The durable steps of the handler, if it has asked for them.
    pub(super) steps: Option<Steps>,
    pub(super) on_renewal: Option<OnRenewal>,
    /// The span of the request, for work in other tasks.
    pub(super) span: Span,
    /// Whether the handler has ended and the engine is ending its claim.
    pub(super) is_recording: AtomicBool,
    pub(super) held: Mutex<Held>,
    pub(super) _counted: InFlight,
}

/// What a run gives back before its [`Work`] is dropped.
pub(super) struct Held {
    /// Lets `drain` wait for the run. A run that is longer than `max_run` gives it up.
    pub(super) tracked: Option<TaskTrackerToken>,
    /// The permit of the handler. It ends with the handler, and not with the recording of its outcome.
    pub(super) permit: Option<Box<Permit>>,
}

/// The answer of a run, and the work that remains after the client has it.
type AnswerAndWork<A> = (RunAnswer<A>, Option<RemainingWork>);

/// Awaits `recording`, passes its outcome to `on_outcome`, and converts it to the client's answer by `to_answer`.
///
/// If the backend panicked, the client gets [`RunAnswer::Panicked`]. The claim lapses, unless it is completed already.
fn report<A>(
    recording: impl Future<Output = (RunOutcome, Option<RemainingWork>)> + Send,
    on_outcome: impl FnOnce(RunOutcome) + Send,
    to_answer: impl FnOnce(RunOutcome) -> RunAnswer<A> + Send,
) -> impl Future<Output = AnswerAndWork<A>> + Send {
    AssertUnwindSafe(recording).catch_unwind().map(move |recorded| {
        let Ok((outcome, work)) = recorded else {
            on_outcome(RunOutcome::Panicked);
            return (RunAnswer::Panicked, None);
        };
        on_outcome(outcome);
        (to_answer(outcome), work)
    })
}

/// The client's answer after [`HandlerResult::Whole`].
fn whole_answer<A>(answer: A, outcome: RunOutcome) -> RunAnswer<A> {
    let recorded = !matches!(outcome, RunOutcome::NotRecorded | RunOutcome::Superseded);
    RunAnswer::Answer { answer, recorded }
}

/// The client's answer after [`HandlerResult::Joint`].
fn joint_answer<A>(answer: A, outcome: RunOutcome) -> RunAnswer<A> {
    match outcome {
        RunOutcome::Completed => RunAnswer::Answer { answer, recorded: true },
        RunOutcome::Superseded => RunAnswer::Superseded,
        RunOutcome::RolledBack { may_pass } => RunAnswer::RolledBack { may_pass },
        _ => RunAnswer::NotCommitted,
    }
}

/// The error that a commit's outcome counts as in the metrics of backend calls.
fn commit_error(outcome: CommitOutcome) -> Option<BackendError> {
    let kind = match outcome {
        CommitOutcome::Committed | CommitOutcome::Superseded | CommitOutcome::EndedByHandler => return None,
        CommitOutcome::RolledBack { may_pass: false } => BackendErrorKind::Refused,
        CommitOutcome::RolledBack { may_pass: true } | CommitOutcome::Unknown => BackendErrorKind::Unavailable,
    };
    Some(BackendError::new(kind, "committing"))
}

impl Work {
    /// Runs `handler`, records its outcome and answers. The lease is renewed meanwhile.
    ///
    /// A chain of combinators, because an `async fn` stores what it awaits twice: once as an argument and once in its state
    /// machine. The boxed future of a request is 928 bytes; with `async fn` it was 4,624 bytes.
    pub(super) fn answer<A, F, E>(
        self: Arc<Self>,
        renewals: Renewals,
        handler: F,
        on_outcome: E,
    ) -> impl Future<Output = AnswerAndWork<A>> + Send + use<A, F, E>
    where
        A: Send + 'static,
        F: Future<Output = HandlerResult<A>> + Send + 'static,
        E: FnOnce(RunOutcome) + Send + 'static,
    {
        let span = self.span.clone();
        let answering = renewals
            .begun()
            .then(move |()| AssertUnwindSafe(handler).catch_unwind())
            .then(move |result| self.record_result(result, renewals, on_outcome));
        // Panics of the handler and of the backend are caught inside. This catches a panic of `on_outcome`.
        let answering = AssertUnwindSafe(answering).catch_unwind();
        let answering = answering.map(|answered| answered.unwrap_or((RunAnswer::Panicked, None)));
        answering.instrument(span)
    }

    /// Records how the handler ended, and answers. The table at the top of this file lists the cases.
    ///
    /// Only the usual case, a whole answer, is stored in the request's future. The other cases are boxed.
    fn record_result<A, E>(
        self: Arc<Self>,
        result: thread::Result<HandlerResult<A>>,
        renewals: Renewals,
        on_outcome: E,
    ) -> impl Future<Output = AnswerAndWork<A>> + Send + use<A, E>
    where
        A: Send + 'static,
        E: FnOnce(RunOutcome) + Send + 'static,
    {
        if !matches!(result, Ok(HandlerResult::Streaming { .. })) {
            self.give_back_permit();
        }
        self.warn_of_unasked_steps(&result);
        match result {
            Ok(HandlerResult::Whole { answer, outcome }) => {
                self.log_unknown(&outcome);
                let to_answer = |outcome| whole_answer(answer, outcome);
                report(self.record_outcome(outcome, renewals), on_outcome, to_answer).left_future()
            }
            Ok(HandlerResult::Streaming { answer, outcome }) => {
                let work = self.record_stream(outcome, renewals, on_outcome);
                let answer = RunAnswer::Answer { answer, recorded: true };
                ready((answer, Some(work))).boxed().right_future()
            }
            Ok(HandlerResult::Joint { answer, commit }) => {
                let to_answer = |outcome| joint_answer(answer, outcome);
                let committed = report(self.commit(commit, renewals), on_outcome, to_answer);
                committed.boxed().right_future()
            }
            Err(_panic) => self.end_by_panic(renewals, on_outcome).boxed().right_future(),
        }
    }

    /// The claim as it is now: with steps, if the handler has tried to record one.
    pub(super) fn claim_now(&self) -> Claim {
        let attempt = self.steps.as_ref().and_then(Steps::recorded);
        attempt.map_or_else(|| self.claim.clone(), Attempt::claim)
    }

    fn warn_of_unasked_steps<A>(&self, result: &thread::Result<HandlerResult<A>>) {
        let is_done = match result {
            Ok(HandlerResult::Whole { outcome, .. }) => *outcome != RecordOutcome::Release,
            Ok(HandlerResult::Streaming { .. } | HandlerResult::Joint { .. }) => true,
            Err(_panic) => false,
        };
        if let Some(attempt) = self.steps.as_ref().and_then(Steps::recorded)
            && is_done
        {
            attempt.warn_of_unasked();
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handler has ended.
    fn give_back_permit(&self) {
        let permit = self.held().permit.take();
        drop(permit);
    }

    async fn end_by_panic<A>(
        self: Arc<Self>,
        renewals: Renewals,
        on_outcome: impl FnOnce(RunOutcome),
    ) -> AnswerAndWork<A> {
        let outcome = if self.after_crash == AfterCrash::Refuse {
            self.log_panic("its outcome is unknown");
            RecordOutcome::complete(Completion::Unknown)
        } else {
            self.log_panic("its claim is released");
            RecordOutcome::Release
        };
        let (_, work) = self.record_outcome(outcome, renewals).await;
        on_outcome(RunOutcome::Panicked);
        (RunAnswer::Panicked, work)
    }

    /// Waits for the end of a streamed answer and records its outcome.
    fn record_stream<E>(
        self: Arc<Self>,
        stream: BoxFuture<'static, StreamedOutcome>,
        renewals: Renewals,
        on_outcome: E,
    ) -> RemainingWork
    where
        E: FnOnce(RunOutcome) + Send + 'static,
    {
        let span = self.span.clone();
        let rest = async move {
            let (outcome, until_recorded) = match AssertUnwindSafe(stream).catch_unwind().await {
                Ok(ended) => (ended.outcome, Some(ended.until_recorded)),
                Err(_panic) => {
                    // The client has the start of the answer, so the handler has had its effect and must not run again.
                    self.log_panic("its answer is not kept");
                    (RecordOutcome::complete(Completion::NotStored), None)
                }
            };
            self.give_back_permit();
            let (end, rest) = self.record_outcome(outcome, renewals).await;
            on_outcome(end);
            drop(until_recorded);
            if let Some(rest) = rest {
                rest.await;
            }
        };
        rest.instrument(span).boxed()
    }

    /// Commits the handler's effects together with the record.
    ///
    /// If the commit failed, or its result is unknown, the claim is released before the client gets its answer, so that a
    /// retry finds the final state of the key. If the result is unknown, the release waits in the backend for the end of the
    /// transaction. Then it finds either the claim, and releases it, or the completion, which stays.
    async fn commit(self: Arc<Self>, commit: Commit, renewals: Renewals) -> (RunOutcome, Option<RemainingWork>) {
        self.is_recording.store(true, Ordering::Relaxed);
        let (deadline, timing) = (self.engine.deadline_of(self.claim.lease), Timing::start(Call::Commit));
        let ended_by_handler = commit.ended_by_handler.clone();
        let outcome = commit.within(deadline).await;
        timing.end(&commit_error(outcome).map_or(Ok(()), Err));
        let (end, left) = match outcome {
            CommitOutcome::Committed => return (RunOutcome::Completed, None),
            CommitOutcome::Superseded => {
                self.log_superseded();
                return (RunOutcome::Superseded, None);
            }
            CommitOutcome::RolledBack { may_pass } => (RunOutcome::RolledBack { may_pass }, RecordOutcome::Release),
            CommitOutcome::Unknown => (RunOutcome::NotCommitted, RecordOutcome::Release),
            CommitOutcome::EndedByHandler => (RunOutcome::NotCommitted, RecordOutcome::complete(ended_by_handler)),
        };
        let (_, rest) = self.record_outcome(left, renewals).await;
        (end, rest)
    }

    /// Renews the lease at `next`, and again a third of the lease after each renewal, for as long as the run may hold its claim.
    ///
    /// The task is aborted when the run ends.
    pub(super) async fn renew_from(self: Arc<Self>, mut next: Instant) {
        let Self { engine, key, claim, .. } = self.as_ref();
        let third = claim.lease / 3;
        let mut renewed = next - third;
        let run = LongRun::start(renewed);
        let over = self.renewal_limit.and_then(|longest| renewed.checked_add(longest));
        let (mut renewals, mut noticed_at, mut is_too_long) = (0_u32, LONG_RUN, false);
        loop {
            sleep_until(next).await;
            run.note();
            // An outcome that is being recorded keeps its claim.
            if over.is_some_and(|over| next >= over) && !self.is_recording.load(Ordering::Relaxed) {
                if !std::mem::replace(&mut is_too_long, true) {
                    self.log_too_long();
                }
                let lapses = renewed + claim.lease;
                if next >= lapses {
                    drop(self.held().tracked.take());
                    break;
                }
                // The handler may still end before that, and its outcome be refused for a while.
                next = lapses.min(next + third / 4);
                continue;
            }
            let asked = Instant::now();
            let now = self.claim_now();
            let renewing = engine.within_deadline(Call::Renew, claim.lease, engine.0.backend.renew(key, &now));
            match renewing.await {
                Ok(Fenced::Applied) => {
                    observe::renewal("renewed");
                    if let Some(on_renewal) = &self.on_renewal {
                        on_renewal.call();
                    }
                    (renewed, next) = (asked, asked + third);
                    renewals = renewals.saturating_add(1);
                    if renewals == noticed_at && over.is_none() {
                        noticed_at = noticed_at.saturating_mul(2);
                        self.log_long(renewals);
                    }
                }
                // The engine is ending the claim at the same time, so it may be gone already.
                Ok(Fenced::Superseded) if self.is_recording.load(Ordering::Relaxed) => return,
                Ok(Fenced::Superseded) => {
                    observe::renewal("lost");
                    self.log_lost();
                    break;
                }
                Err(error) => {
                    observe::renewal("failed");
                    self.log_not_renewed(&error);
                    next = Instant::now() + third / 4;
                }
            }
        }
        // The handler still runs, and is still the longest run, perhaps.
        loop {
            sleep(third).await;
            run.note();
        }
    }
}
