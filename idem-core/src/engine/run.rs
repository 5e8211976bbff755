//! From the right to run to a recorded outcome.

use std::error::Error;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::Instrument as _;

use super::{Engine, Executed, Finished, Outcome};
use crate::{AfterCrash, BackendError, BackendErrorKind, Claim, Completion, Fenced, RecordKey};

/// One acquired claim, whose handler is about to start.
///
/// It has no `Drop`: a started handler's claim ends by its outcome or by its lease (IDEM-6).
pub(super) struct Work {
    pub(super) engine: Engine,
    pub(super) key: RecordKey,
    pub(super) claim: Claim,
    pub(super) after_crash: AfterCrash,
    /// The handler has ended, and its claim is being ended.
    pub(super) settling: AtomicBool,
}

impl Work {
    /// Runs `handler`, answers and records, renewing the lease all the while.
    pub(super) async fn run_to_the_end<A, F>(
        self: Arc<Self>,
        renewals: Renewals,
        handler: F,
        answer: oneshot::Sender<Executed<A>>,
    ) where
        F: Future<Output = Finished<A>> + Send,
    {
        match AssertUnwindSafe(handler).catch_unwind().await {
            Ok(Finished::Whole { answer: ours, outcome }) => {
                let reply = |recorded| Executed::Answer { answer: ours, recorded };
                self.conclude(outcome, renewals, |recorded| hand_over(answer, reply(recorded)))
                    .await;
            }
            Ok(Finished::Streaming { answer: ours, ending }) => {
                let recorded = true;
                hand_over(answer, Executed::Answer { answer: ours, recorded });
                match AssertUnwindSafe(ending).catch_unwind().await {
                    Ok(ending) => {
                        let until_recorded = ending.until_recorded;
                        self.conclude(ending.outcome, renewals, |_| drop(until_recorded)).await;
                    }
                    Err(_panic) => {
                        // The answer is on its way, so the handler has had its effect: it must not run again.
                        self.log_panic("its answer is not kept");
                        let outcome = Outcome::Complete(Completion::NotStored);
                        self.conclude(outcome, renewals, |_| {}).await;
                    }
                }
            }
            Ok(Finished::Joint { answer: ours, commit }) => self.commit(ours, commit, renewals, answer).await,
            Err(_panic) if self.after_crash == AfterCrash::Refuse => {
                // Nobody knows how far it came. The claim lapses, and then says so.
                drop(renewals);
                self.log_panic("its outcome is unknown");
                hand_over(answer, Executed::Panicked);
            }
            Err(_panic) => {
                self.log_panic("its claim is released");
                let end_answer = |_| hand_over(answer, Executed::Panicked);
                self.conclude(Outcome::Release, renewals, end_answer).await;
            }
        }
    }

    /// Lets the outcome be recorded together with the effects, and answers.
    ///
    /// Where nobody knows whether it was, the claim is released: a backend that records by transactions lets that wait
    /// for the end of this one, and then either there is a claim to release, or a completion, which stays.
    async fn commit<A>(
        &self,
        ours: A,
        commit: BoxFuture<'static, Result<Fenced, BackendError>>,
        renewals: Renewals,
        answer: oneshot::Sender<Executed<A>>,
    ) {
        self.settling.store(true, Ordering::Relaxed);
        let asked = Instant::now();
        let committed = self.engine.within_deadline(self.claim.lease, commit).await;
        drop(renewals);
        match committed {
            Ok(Fenced::Applied) => {
                let recorded = true;
                hand_over(answer, Executed::Answer { answer: ours, recorded });
            }
            Ok(Fenced::Superseded) => {
                self.log_superseded();
                hand_over(answer, Executed::Superseded);
            }
            Err(error) => {
                hand_over(answer, Executed::NotCommitted);
                self.settle_eventually(&Outcome::Release, asked, None, error).await;
            }
        }
    }

    /// Records the outcome, then ends the answer; where that fails, ends the answer and goes on trying.
    async fn conclude(&self, outcome: Outcome, renewals: Renewals, end_answer: impl FnOnce(bool)) {
        self.settling.store(true, Ordering::Relaxed);
        let asked = Instant::now();
        let is_kept = matches!(outcome, Outcome::Complete(_));
        let mut settled = self.settle(&outcome).await;
        if settled
            .as_ref()
            .is_err_and(|error| error.kind() == BackendErrorKind::Unavailable)
        {
            // Mostly a connection that broke while it was idle; the next one is there already.
            settled = self.settle(&outcome).await;
        }
        match settled {
            Ok(fenced) => {
                // A release has nothing to lose; and repeated, it finds nothing.
                if is_kept && fenced == Fenced::Superseded {
                    self.log_superseded();
                }
                end_answer(!is_kept || fenced == Fenced::Applied);
            }
            Err(error) => {
                end_answer(!is_kept);
                // What is not kept lapses by itself.
                let renewals = is_kept.then_some(renewals);
                self.settle_eventually(&outcome, asked, renewals, error).await;
            }
        }
    }

    /// Records the outcome: one call.
    async fn settle(&self, outcome: &Outcome) -> Result<Fenced, BackendError> {
        let Self { engine, key, claim, .. } = self;
        match outcome {
            Outcome::Complete(completion) => {
                engine
                    .within_deadline(claim.lease, engine.backend.complete(key, claim, completion))
                    .await
            }
            Outcome::Release => {
                engine
                    .within_deadline(claim.lease, engine.backend.release(key, claim))
                    .await
            }
        }
    }

    /// Records the outcome after a first try that ended in `error`.
    ///
    /// An outcome that is kept is tried for as long as it would be replayed, and its claim is held meanwhile. A release
    /// is tried for a lease, after which the claim has lapsed anyway; and so is what the backend refuses, for waiting
    /// does not change its mind.
    async fn settle_eventually(
        &self,
        outcome: &Outcome,
        asked: Instant,
        renewals: Option<Renewals>,
        mut error: BackendError,
    ) {
        let Self { key, claim, .. } = self;
        let attempt = claim.attempt;
        tracing::warn!(%key, attempt, error = &error as &dyn Error, "the outcome could not be recorded yet; trying again");
        let is_kept = renewals.is_some();
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
                Ok(_) => return tracing::info!(%key, attempt, "the outcome is recorded at last"),
                Err(again) => error = again,
            }
        }
        tracing::error!(
            %key,
            attempt,
            error = &error as &dyn Error,
            "the outcome was never recorded; a retry runs the handler again"
        );
    }

    fn log_superseded(&self) {
        tracing::warn!(
            key = %self.key,
            attempt = self.claim.attempt,
            "the claim was superseded before its handler ended, so its outcome is not recorded; the lease is too short \
             for a stall this long, or the backend lost the claim"
        );
    }

    fn log_panic(&self, consequence: &str) {
        // The panic hook has reported the panic itself.
        tracing::error!(key = %self.key, attempt = self.claim.attempt, "the handler panicked; {consequence}");
    }

    /// Starts to renew the lease, in a task of its own: a handler that blocks its thread must not lose its claim.
    ///
    /// Start it before the task that it guards: of the tasks that a worker of tokio's has just spawned, others can
    /// take over all but the last.
    pub(super) fn renewing(self: &Arc<Self>, since: Instant) -> Renewals {
        Renewals(tokio::spawn(self.clone().renew_from(since).in_current_span()))
    }

    /// Renews the lease a third of it after each renewal was asked for.
    async fn renew_from(self: Arc<Self>, since: Instant) {
        let Self { engine, key, claim, .. } = self.as_ref();
        let third = claim.lease / 3;
        let mut next = since + third;
        loop {
            sleep_until(next).await;
            let asked = Instant::now();
            match engine
                .within_deadline(claim.lease, engine.backend.renew(key, claim))
                .await
            {
                Ok(Fenced::Applied) => next = asked + third,
                // It ends the claim itself, beside this.
                Ok(Fenced::Superseded) if self.settling.load(Ordering::Relaxed) => return,
                Ok(Fenced::Superseded) => {
                    return tracing::warn!(
                        %key,
                        attempt = claim.attempt,
                        "the lease was lost while the handler runs; it runs on, but another attempt may run beside it"
                    );
                }
                Err(error) => {
                    tracing::warn!(%key, error = &error as &dyn Error, "the lease could not be renewed; trying again");
                    next = Instant::now() + third / 4;
                }
            }
        }
    }
}

/// Renewals that end when this is dropped.
pub(super) struct Renewals(JoinHandle<()>);

impl Drop for Renewals {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answers the request; its client may have left, and then the record is for its retry.
fn hand_over<A>(answer: oneshot::Sender<Executed<A>>, executed: Executed<A>) {
    let _ = answer.send(executed);
}
