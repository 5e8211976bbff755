//! From the right to run to a recorded outcome.
//!
//! Owns what becomes of a handler's end, in the order in which client and backend learn of it. What can wait until the
//! client has its answer is left over as a [`Rest`].

use std::error::Error;
use std::future::{Future, ready};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{Instrument as _, Span};

use super::attended::Rest;
use super::renewals::Renewals;
use super::{Commit, CommitOutcome, Ended, Ending, Engine, Executed, Finished, Outcome, large};
use crate::observe::{self, Call, InFlight, Timing};
use crate::{AfterCrash, BackendError, BackendErrorKind, Claim, Completion, Fenced, RecordKey};

/// After how many renewals a handler's run is long enough for a line in the log; then at each doubling.
const LONG_RUN: u32 = 10;

/// One acquired claim, whose handler is about to start.
///
/// It has no `Drop`: a started handler's claim ends by its outcome or by its lease (IDEM-6).
pub(super) struct Work {
    pub(super) engine: Engine,
    pub(super) key: RecordKey,
    pub(super) claim: Claim,
    pub(super) after_crash: AfterCrash,
    /// The request's, for what happens in other tasks.
    pub(super) span: Span,
    /// The handler has ended, and its claim is being ended.
    pub(super) settling: AtomicBool,
    pub(super) _counted: InFlight,
}

/// What a run comes to, and what is left to do once its client has been told.
type Answered<A> = (Executed<A>, Option<Rest>);

/// Tells `ended` how the record came out, also where the backend panicked: its claim lapses by itself then, unless it is
/// completed.
fn told<A>(
    recording: impl Future<Output = (Ended, Option<Rest>)> + Send,
    ended: impl FnOnce(Ended) + Send,
    executed: impl FnOnce(Ended) -> Executed<A> + Send,
) -> impl Future<Output = Answered<A>> + Send {
    AssertUnwindSafe(recording).catch_unwind().map(move |recorded| {
        let Ok((end, rest)) = recorded else {
            ended(Ended::Panicked);
            return (Executed::Panicked, None);
        };
        ended(end);
        (executed(end), rest)
    })
}

/// How a commit counts among the calls to the backend.
fn commit_error(outcome: CommitOutcome) -> Option<BackendError> {
    let kind = match outcome {
        CommitOutcome::Committed | CommitOutcome::Superseded | CommitOutcome::EndedByHandler => return None,
        CommitOutcome::RolledBack { may_pass: false } => BackendErrorKind::Refused,
        CommitOutcome::RolledBack { may_pass: true } | CommitOutcome::Unknown => BackendErrorKind::Unavailable,
    };
    Some(BackendError::new(kind, "committing"))
}

impl Work {
    /// Runs `handler`, records its outcome and answers, renewing the lease all the while.
    ///
    /// Put together from steps, for an `async fn` would have room for each of them twice.
    pub(super) fn answer<A, F, E>(
        self: Arc<Self>,
        renewals: Renewals,
        handler: F,
        ended: E,
    ) -> impl Future<Output = Answered<A>> + Send + use<A, F, E>
    where
        A: Send + 'static,
        F: Future<Output = Finished<A>> + Send + 'static,
        E: FnOnce(Ended) + Send + 'static,
    {
        let span = self.span.clone();
        let answering = renewals
            .begun()
            .then(move |()| AssertUnwindSafe(handler).catch_unwind())
            .then(move |handled| self.end(handled, renewals, ended));
        // The handler's own panics are caught before, and a backend's; these are of what watches.
        let answering = AssertUnwindSafe(answering).catch_unwind();
        let answering = answering.map(|answered| answered.unwrap_or((Executed::Panicked, None)));
        answering.instrument(span)
    }

    /// Makes of a handler's end an answer and a recorded outcome.
    fn end<A, E>(
        self: Arc<Self>,
        handled: thread::Result<Finished<A>>,
        renewals: Renewals,
        ended: E,
    ) -> impl Future<Output = Answered<A>> + Send + use<A, E>
    where
        A: Send + 'static,
        E: FnOnce(Ended) + Send + 'static,
    {
        match handled {
            Ok(Finished::Whole { answer, outcome }) => {
                let executed = move |end| {
                    let recorded = !matches!(end, Ended::NotRecorded | Ended::Superseded);
                    Executed::Answer { answer, recorded }
                };
                told(self.conclude(outcome, renewals), ended, executed).left_future()
            }
            Ok(Finished::Streaming { answer, ending }) => {
                let recorded = true;
                let rest = self.stream(ending, renewals, ended);
                let answered = (Executed::Answer { answer, recorded }, Some(rest));
                ready(answered).boxed().right_future()
            }
            Ok(Finished::Unknown { answer }) => {
                // As after a panic: a claim that lapses says that nobody knows.
                drop(renewals);
                tracing::warn!(
                    key = %self.key.shown(),
                    attempt = self.claim.attempt,
                    "the handler's answer leaves open whether it had an effect; its outcome is unknown"
                );
                ended(Ended::Unknown);
                let recorded = true;
                let answered = (Executed::Answer { answer, recorded }, None);
                ready(answered).boxed().right_future()
            }
            Ok(Finished::Joint { answer, commit }) => {
                let executed = move |end| match end {
                    Ended::Completed => Executed::Answer { answer, recorded: true },
                    Ended::Superseded => Executed::Superseded,
                    Ended::RolledBack { may_pass } => Executed::RolledBack { may_pass },
                    _ => Executed::NotCommitted,
                };
                let committed = told(self.commit(commit, renewals), ended, executed);
                committed.boxed().right_future()
            }
            Err(_panic) => self.end_of_panic(renewals, ended).boxed().right_future(),
        }
    }

    async fn end_of_panic<A>(self: Arc<Self>, renewals: Renewals, ended: impl FnOnce(Ended)) -> Answered<A> {
        let mut rest = None;
        if self.after_crash == AfterCrash::Refuse {
            // Nobody knows how far it came. The claim lapses, and then says so.
            drop(renewals);
            self.log_panic("its outcome is unknown");
        } else {
            self.log_panic("its claim is released");
            (_, rest) = self.conclude(Outcome::Release, renewals).await;
        }
        ended(Ended::Panicked);
        (Executed::Panicked, rest)
    }

    /// Waits for the end of a streamed answer and records its outcome.
    fn stream<E>(self: Arc<Self>, ending: BoxFuture<'static, Ending>, renewals: Renewals, ended: E) -> Rest
    where
        E: FnOnce(Ended) + Send + 'static,
    {
        let span = self.span.clone();
        let rest = async move {
            let (outcome, until_recorded) = match AssertUnwindSafe(ending).catch_unwind().await {
                Ok(ending) => (ending.outcome, Some(ending.until_recorded)),
                Err(_panic) => {
                    // The answer is on its way, so the handler has had its effect: it must not run again.
                    self.log_panic("its answer is not kept");
                    (Outcome::Complete(Completion::NotStored), None)
                }
            };
            let (end, rest) = self.conclude(outcome, renewals).await;
            ended(end);
            drop(until_recorded);
            if let Some(rest) = rest {
                rest.await;
            }
        };
        rest.instrument(span).boxed()
    }

    /// Lets the outcome be recorded together with the effects.
    ///
    /// Where it was not, or nobody knows whether it was, the claim is released before the client is told, so that its retry
    /// finds the key as it will be. A backend that records by transactions lets a release wait for the end of this one: then
    /// either there is a claim to release, or a completion, which stays.
    async fn commit(self: Arc<Self>, commit: Commit, renewals: Renewals) -> (Ended, Option<Rest>) {
        self.settling.store(true, Ordering::Relaxed);
        let (deadline, timing) = (self.engine.deadline_of(self.claim.lease), Timing::start(Call::Commit));
        let outcome = commit.within(deadline).await;
        timing.end(&commit_error(outcome).map_or(Ok(()), Err));
        let (end, left) = match outcome {
            CommitOutcome::Committed => return (Ended::Completed, None),
            CommitOutcome::Superseded => {
                self.log_superseded();
                return (Ended::Superseded, None);
            }
            CommitOutcome::RolledBack { may_pass } => (Ended::RolledBack { may_pass }, Outcome::Release),
            CommitOutcome::Unknown => (Ended::NotCommitted, Outcome::Release),
            CommitOutcome::EndedByHandler => (Ended::NotCommitted, Outcome::Complete(Completion::NotStored)),
        };
        let (_, rest) = self.conclude(left, renewals).await;
        (end, rest)
    }

    /// Records the outcome.
    fn conclude(
        self: Arc<Self>,
        outcome: Outcome,
        renewals: Renewals,
    ) -> impl Future<Output = (Ended, Option<Rest>)> + Send {
        if large::is_large(&outcome) {
            self.settling.store(true, Ordering::Relaxed);
            return self.conclude_large(outcome, renewals).boxed().left_future();
        }
        self.conclude_small(outcome, renewals).right_future()
    }

    /// Records an outcome that is not large; where that fails, what is left is to go on trying.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` has room for its arguments twice")]
    pub(super) fn conclude_small(
        self: Arc<Self>,
        outcome: Outcome,
        renewals: Renewals,
    ) -> impl Future<Output = (Ended, Option<Rest>)> + Send {
        async move {
            self.settling.store(true, Ordering::Relaxed);
            let asked = Instant::now();
            let mut settled = self.settle(&outcome).await;
            if settled
                .as_ref()
                .is_err_and(|error| error.kind() == BackendErrorKind::Unavailable)
            {
                // Mostly a connection that broke while it was idle; the next one is there already.
                settled = self.settle(&outcome).boxed().await;
            }
            match (settled, &outcome) {
                // It has nothing to lose; and repeated, it finds nothing.
                (Ok(_), Outcome::Release) => (Ended::Released, None),
                (Ok(Fenced::Superseded), Outcome::Complete(_)) => {
                    self.log_superseded();
                    (Ended::Superseded, None)
                }
                (Ok(Fenced::Applied), Outcome::Complete(Completion::NotStored)) => (Ended::NotStored, None),
                (Ok(Fenced::Applied), Outcome::Complete(Completion::Stored(payload))) => {
                    observe::record(payload.len());
                    (Ended::Completed, None)
                }
                // What is not kept lapses by itself.
                (Err(error), Outcome::Release) => {
                    let rest = self.settle_eventually(outcome, asked, None, error);
                    (Ended::Released, Some(rest))
                }
                (Err(error), Outcome::Complete(_)) => {
                    let rest = self.settle_eventually(outcome, asked, Some(renewals), error);
                    (Ended::NotRecorded, Some(rest))
                }
            }
        }
    }

    /// Records the outcome: one call, within the deadline of any.
    fn settle<'a>(&'a self, outcome: &'a Outcome) -> impl Future<Output = Result<Fenced, BackendError>> + Send + 'a {
        let (call, answering) = self.settling(outcome);
        Engine::within(call, self.engine.deadline_of(self.claim.lease), answering)
    }

    /// The call that records the outcome, without a deadline.
    pub(super) fn settling<'a>(&'a self, outcome: &'a Outcome) -> (Call, BoxFuture<'a, Result<Fenced, BackendError>>) {
        let Self { engine, key, claim, .. } = self;
        let backend = &engine.0.backend;
        match outcome {
            Outcome::Complete(completion) => (Call::Complete, backend.complete(key, claim, completion)),
            Outcome::Release => (Call::Release, backend.release(key, claim)),
        }
    }

    /// Records the outcome after a first try that ended in `error`.
    ///
    /// An outcome that is kept is tried for as long as it would be replayed, and its claim is held meanwhile. A release
    /// is tried for a lease, after which the claim has lapsed anyway; and so is what the backend refuses, for waiting
    /// does not change its mind.
    fn settle_eventually(
        self: Arc<Self>,
        outcome: Outcome,
        asked: Instant,
        renewals: Option<Renewals>,
        error: BackendError,
    ) -> Rest {
        let Self { key, claim, span, .. } = self.as_ref();
        let attempt = claim.attempt;
        tracing::warn!(key = %key.shown(), attempt, error = &error as &dyn Error, "the outcome could not be recorded yet; trying again for as long as this process runs");
        let span = span.clone();
        let rest = async move {
            let is_kept = renewals.is_some();
            self.try_again(&outcome, is_kept, asked, error).await;
        };
        rest.instrument(span).boxed()
    }

    async fn try_again(&self, outcome: &Outcome, is_kept: bool, asked: Instant, mut error: BackendError) {
        let Self { key, claim, .. } = self;
        let attempt = claim.attempt;
        let mut pause = Duration::from_millis(50);
        loop {
            let patience = if is_kept && error.is_transient() {
                claim.ttl
            } else {
                claim.lease
            };
            if asked.elapsed() >= patience {
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
            match self.settle(outcome).await {
                Ok(Fenced::Superseded) if is_kept => return self.log_superseded(),
                // A release that finds nothing was carried out before, or the claim ended otherwise.
                Ok(Fenced::Superseded) => return,
                Ok(Fenced::Applied) => {
                    return tracing::info!(key = %key.shown(), attempt, "the outcome is recorded at last");
                }
                Err(again) => error = again,
            }
        }
        tracing::error!(
            key = %key.shown(),
            attempt,
            error = &error as &dyn Error,
            "the outcome was never recorded; once its lease has lapsed, a retry finds a dead attempt"
        );
    }

    pub(super) fn log_superseded(&self) {
        tracing::warn!(
            key = %self.key.shown(),
            attempt = self.claim.attempt,
            "the claim was superseded before its handler ended, so its outcome is not recorded; the lease is too short \
             for a stall this long, or the backend lost the claim"
        );
    }

    fn log_panic(&self, consequence: &str) {
        // The panic hook has reported the panic itself.
        tracing::error!(key = %self.key.shown(), attempt = self.claim.attempt, "the handler panicked; {consequence}");
    }

    /// Renews the lease at `next`, and a third of it after each renewal was asked for.
    pub(super) async fn renew_from(self: Arc<Self>, mut next: Instant) {
        let Self { engine, key, claim, .. } = self.as_ref();
        let third = claim.lease / 3;
        let (mut renewals, mut noticed_at) = (0_u32, LONG_RUN);
        loop {
            sleep_until(next).await;
            let asked = Instant::now();
            match engine
                .within_deadline(Call::Renew, claim.lease, engine.0.backend.renew(key, claim))
                .await
            {
                Ok(Fenced::Applied) => {
                    observe::renewal("renewed");
                    next = asked + third;
                    renewals = renewals.saturating_add(1);
                    if renewals == noticed_at {
                        noticed_at = noticed_at.saturating_mul(2);
                        tracing::warn!(
                            key = %key.shown(),
                            attempt = claim.attempt,
                            renewals,
                            "the handler has been running for several leases; its key is held and `drain` waits for it \
                             until it ends. Give the calls that it makes a deadline"
                        );
                    }
                }
                // It ends the claim itself, beside this.
                Ok(Fenced::Superseded) if self.settling.load(Ordering::Relaxed) => return,
                Ok(Fenced::Superseded) => {
                    observe::renewal("lost");
                    return tracing::warn!(
                        key = %key.shown(),
                        attempt = claim.attempt,
                        "the lease was lost while the handler runs; it runs on, but another attempt may run beside it. Choose a \
                         lease longer than any stall, and look whether the backend lost the record"
                    );
                }
                Err(error) => {
                    observe::renewal("failed");
                    tracing::warn!(key = %key.shown(), error = &error as &dyn Error, "the lease could not be renewed; trying again. It lapses if the backend stays away");
                    next = Instant::now() + third / 4;
                }
            }
        }
    }
}
