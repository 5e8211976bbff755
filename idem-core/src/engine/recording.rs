//! Recording an outcome.
//!
//! Owns the order of tries:
//!
//! 1. One call.
//! 2. A second call, if the backend was unavailable: the connection may have broken.
//! 3. Tries in the background, for as long as the outcome is of use.
//!
//! Does not own the deadline of a large outcome: [`large`].

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};
use tracing::Instrument as _;

use super::attended::RemainingWork;
use super::renewals::Renewals;
use super::run::Work;
use super::{Engine, RecordOutcome, RunOutcome, large};
use crate::observe::{self, Call};
use crate::steps::{Attempt, Steps};
use crate::{BackendError, BackendErrorKind, Completion, Fenced};

impl Work {
    /// Records the outcome.
    pub(super) fn record_outcome(
        self: Arc<Self>,
        outcome: RecordOutcome,
        renewals: Renewals,
    ) -> impl Future<Output = (RunOutcome, Option<RemainingWork>)> + Send {
        if large::is_large(&outcome) {
            self.is_recording.store(true, Ordering::Relaxed);
            return self.record_large(outcome, renewals).boxed().left_future();
        }
        self.record_small(outcome, renewals).right_future()
    }

    /// Records an outcome that is not large. If that fails, the further tries are returned as remaining work.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` stores its arguments twice")]
    pub(super) fn record_small(
        self: Arc<Self>,
        outcome: RecordOutcome,
        renewals: Renewals,
    ) -> impl Future<Output = (RunOutcome, Option<RemainingWork>)> + Send {
        async move {
            self.is_recording.store(true, Ordering::Relaxed);
            let asked = Instant::now();
            let mut recorded = self.record_once(&outcome).await;
            if recorded
                .as_ref()
                .is_err_and(|error| error.kind() == BackendErrorKind::Unavailable)
            {
                // The usual cause is a connection that broke while it was idle; the next connection works.
                recorded = self.record_once(&outcome).boxed().await;
            }
            match (recorded, &outcome) {
                (Ok(Fenced::Superseded), RecordOutcome::Release) if self.knows_of_steps() => {
                    self.log_steps_lost();
                    (RunOutcome::Superseded, None)
                }
                // A release may be superseded: a repeated release finds nothing, and there is no outcome to lose.
                (Ok(_), RecordOutcome::Release) => (self.released(), None),
                (Ok(Fenced::Superseded), RecordOutcome::Complete { .. }) => {
                    self.log_superseded();
                    (RunOutcome::Superseded, None)
                }
                (Ok(Fenced::Applied), RecordOutcome::Complete { completion, .. }) => match completion {
                    Completion::NotStored => (RunOutcome::NotStored, None),
                    Completion::Unknown => (RunOutcome::Unknown, None),
                    Completion::Stored(payload) => {
                        observe::record(payload.len());
                        (RunOutcome::Completed, None)
                    }
                },
                // The client need not know of a failed release: the claim lapses by itself.
                (Err(error), RecordOutcome::Release) => {
                    let released = self.released();
                    (released, Some(self.keep_recording(outcome, asked, None, error)))
                }
                (Err(error), RecordOutcome::Complete { .. }) => {
                    let rest = self.keep_recording(outcome, asked, Some(renewals), error);
                    (RunOutcome::NotRecorded, Some(rest))
                }
            }
        }
    }

    /// Records the outcome by one call, within the usual deadline.
    fn record_once<'a>(
        &'a self,
        outcome: &'a RecordOutcome,
    ) -> impl Future<Output = Result<Fenced, BackendError>> + Send + 'a {
        let (call, answering) = self.recording_call(outcome);
        Engine::within(call, self.engine.deadline_of(self.claim.lease), answering)
    }

    /// The call that records the outcome, without a deadline.
    pub(super) fn recording_call<'a>(
        &'a self,
        outcome: &'a RecordOutcome,
    ) -> (Call, BoxFuture<'a, Result<Fenced, BackendError>>) {
        let Self {
            engine,
            key,
            claim,
            steps,
            ..
        } = self;
        let backend = &engine.0.backend;
        if steps.is_some() || claim.has_steps {
            return self.recording_call_with_steps(outcome);
        }
        match outcome {
            RecordOutcome::Complete { completion, .. } => {
                let ttl = outcome.ttl(claim);
                (Call::Complete, backend.complete(key, claim, completion, ttl))
            }
            RecordOutcome::Release => (Call::Release, backend.release(key, claim)),
        }
    }

    /// The same for a record that may have steps, which a release would forget.
    fn recording_call_with_steps<'a>(
        &'a self,
        outcome: &'a RecordOutcome,
    ) -> (Call, BoxFuture<'a, Result<Fenced, BackendError>>) {
        let claim = self.claim_now();
        let (key, backend) = (&self.key, &self.engine.0.backend);
        // Parked also if no step is known of: a task that the handler has left behind may be recording one.
        match (outcome, backend.steps()) {
            (RecordOutcome::Complete { completion, .. }, _) => {
                let ttl = outcome.ttl(&claim);
                let completing = async move { backend.complete(key, &claim, completion, ttl).await };
                (Call::Complete, completing.boxed())
            }
            (RecordOutcome::Release, Some(store)) => (Call::Park, async move { store.park(key, &claim).await }.boxed()),
            (RecordOutcome::Release, None) => {
                (Call::Release, async move { backend.release(key, &claim).await }.boxed())
            }
        }
    }

    /// Whether the record has steps for certain, unless it was superseded or lost.
    fn knows_of_steps(&self) -> bool {
        let attempt = self.steps.as_ref().and_then(Steps::recorded);
        attempt.is_some_and(Attempt::knows_of_steps)
    }

    /// How a run is reported that has released its claim.
    fn released(&self) -> RunOutcome {
        if self.claim_now().has_steps {
            RunOutcome::Parked
        } else {
            RunOutcome::Released
        }
    }

    /// Records the outcome after a first try that ended in `error`.
    ///
    /// | outcome | error | how long it is tried | the lease |
    /// |---|---|---|---|
    /// | kept | transient | the outcome's `ttl`: as long as it would be replayed | is renewed meanwhile |
    /// | kept | refused | one lease, because waiting does not change a refusal | is renewed meanwhile |
    /// | released | any | one lease, because after that the claim has lapsed | is not renewed |
    fn keep_recording(
        self: Arc<Self>,
        outcome: RecordOutcome,
        asked: Instant,
        renewals: Option<Renewals>,
        error: BackendError,
    ) -> RemainingWork {
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

    async fn try_again(&self, outcome: &RecordOutcome, is_kept: bool, asked: Instant, mut error: BackendError) {
        let Self { key, claim, .. } = self;
        let attempt = claim.attempt;
        let mut pause = Duration::from_millis(50);
        loop {
            let patience = if is_kept && error.is_transient() {
                outcome.ttl(claim)
            } else {
                claim.lease
            };
            if asked.elapsed() >= patience {
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
            match self.record_once(outcome).await {
                Ok(Fenced::Superseded) if is_kept => return self.log_superseded(),
                // The release finds nothing: an earlier try took effect, or the claim ended otherwise.
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
}
