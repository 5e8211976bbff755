//! From the right to run to a recorded outcome.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Either, pending, select};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::{Engine, Finished, Outcome, Reply};
use crate::{BackendError, Claim, Fenced, RecordKey};

/// One acquired claim, whose handler is about to start.
///
/// It has no `Drop`: a started handler's claim ends by its outcome or by its lease (IDEM-6).
pub(super) struct Run {
    pub(super) engine: Engine,
    pub(super) key: RecordKey,
    pub(super) claim: Claim,
}

impl Run {
    /// Runs `handler`, answers and records, renewing the lease all the while.
    pub(super) async fn run_to_the_end<A, F>(self, handler: F, answer: oneshot::Sender<Reply<A>>)
    where
        F: Future<Output = Finished<A>> + Send,
    {
        let work = pin!(self.work(handler, answer));
        let renewals = pin!(self.renewals());
        // `select` polls its first future first: once the work is done, no renewal is looked at any more.
        match select(work, renewals).await {
            Either::Left(((), _)) => {}
            Either::Right((never, _)) => match never {},
        }
    }

    async fn work<A, F>(&self, handler: F, answer: oneshot::Sender<Reply<A>>)
    where
        F: Future<Output = Finished<A>> + Send,
    {
        match AssertUnwindSafe(handler).catch_unwind().await {
            Ok(Finished::Whole { answer: ours, outcome }) => {
                let reply = |recorded| Reply::Executed { answer: ours, recorded };
                self.conclude(outcome, |recorded| hand_over(answer, reply(recorded)))
                    .await;
            }
            Ok(Finished::Streaming { answer: ours, ending }) => {
                let recorded = true;
                hand_over(answer, Reply::Executed { answer: ours, recorded });
                match AssertUnwindSafe(ending).catch_unwind().await {
                    Ok(ending) => self.conclude(ending.outcome, |_| drop(ending.until_recorded)).await,
                    Err(_panic) => self.conclude(self.panicked(), |_| {}).await,
                }
            }
            Err(_panic) => {
                let outcome = self.panicked();
                self.conclude(outcome, |_| hand_over(answer, Reply::Panicked)).await;
            }
        }
    }

    /// Records the outcome, then ends the answer; where the first try fails, ends the answer and goes on trying.
    async fn conclude(&self, outcome: Outcome, end_answer: impl FnOnce(bool)) {
        match self.settle(&outcome).await {
            Ok(fenced) => end_answer(fenced == Fenced::Applied),
            Err(error) => {
                end_answer(false);
                self.settle_eventually(&outcome, error).await;
            }
        }
    }

    /// Records the outcome: one call.
    async fn settle(&self, outcome: &Outcome) -> Result<Fenced, BackendError> {
        let Self { engine, key, claim } = self;
        let settled = match outcome {
            Outcome::Complete(completion) => {
                engine
                    .within_deadline(engine.backend.complete(key, claim, completion))
                    .await?
            }
            Outcome::Release => engine.within_deadline(engine.backend.release(key, claim)).await?,
        };
        if settled == Fenced::Superseded {
            tracing::warn!(
                %key,
                attempt = claim.attempt,
                "the claim was superseded before its handler ended, so its outcome is not recorded; the lease is too \
                 short for a stall this long, or the backend lost the claim"
            );
        }
        Ok(settled)
    }

    /// Records the outcome after a first try that ended in `error`, trying for as long as it would be replayed.
    async fn settle_eventually(&self, outcome: &Outcome, mut error: BackendError) {
        let Self { key, claim, .. } = self;
        tracing::warn!(
            %key,
            attempt = claim.attempt,
            error = &error as &dyn Error,
            "the outcome could not be recorded yet; trying again while the claim is held"
        );
        let worthless = Instant::now() + claim.ttl;
        let mut pause = Duration::from_millis(50);
        while Instant::now() < worthless {
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
            match self.settle(outcome).await {
                Ok(_) => {
                    tracing::info!(%key, attempt = claim.attempt, "the backend has answered about the outcome");
                    return;
                }
                Err(again) => error = again,
            }
        }
        tracing::error!(
            %key,
            error = &error as &dyn Error,
            "the outcome was never recorded; a retry runs the handler again"
        );
    }

    /// The panic hook has reported the panic itself.
    fn panicked(&self) -> Outcome {
        tracing::error!(key = %self.key, attempt = self.claim.attempt, "the handler panicked; its claim is released");
        Outcome::Release
    }

    /// Renews the lease at a third of it, for as long as it is polled.
    async fn renewals(&self) -> Infallible {
        let Self { engine, key, claim } = self;
        let third = claim.lease / 3;
        let mut pause = third;
        loop {
            sleep(pause).await;
            match engine.within_deadline(engine.backend.renew(key, claim)).await {
                Ok(Fenced::Applied) => pause = third,
                Ok(Fenced::Superseded) => {
                    tracing::warn!(
                        %key,
                        attempt = claim.attempt,
                        "the lease was lost while the handler runs; it runs on, but another attempt may run beside it"
                    );
                    return pending().await;
                }
                Err(error) => {
                    tracing::warn!(
                        %key,
                        error = &error as &dyn Error,
                        "the lease could not be renewed; trying again"
                    );
                    pause = third / 4;
                }
            }
        }
    }
}

/// Answers the request; its client may have left, and then the record is for its retry.
fn hand_over<A>(answer: oneshot::Sender<Reply<A>>, reply: Reply<A>) {
    let _ = answer.send(reply);
}
