//! An outcome that is too large for the deadline of any call.
//!
//! Owns how long recording it is tried, and that it ends: what has not come through in the time that its size allows is
//! given up, and the record completes without it (IDEM-12), so that the handler never runs again for that. A handler's
//! client waits no longer for it than for any other outcome.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument as _;

use super::attended::Rest;
use super::deadline::{LARGE_PAYLOAD, time_for};
use super::renewals::Renewals;
use super::run::Work;
use super::{Ended, Outcome};
use crate::{BackendError, Completion, Fenced, observe};

/// Whether the outcome is too large for the deadline of any call.
pub(super) fn is_large(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Complete(Completion::Stored(payload)) if payload.len() > LARGE_PAYLOAD)
}

impl Work {
    /// Records a large outcome; where that takes longer than the deadline, what is left is to go on with it.
    pub(super) async fn conclude_large(self: Arc<Self>, outcome: Outcome, renewals: Renewals) -> (Ended, Option<Rest>) {
        let (key, attempt) = (self.key.shown().to_string(), self.claim.attempt);
        let deadline = self.engine.deadline_of(self.claim.lease);
        let span = self.span.clone();
        let mut recording = self.record_large(outcome, renewals).boxed();
        if let Ok(recorded) = timeout(deadline, &mut recording).await {
            return recorded;
        }
        tracing::debug!(
            key,
            attempt,
            "the outcome is large and still on its way to the backend; its client does not wait for it"
        );
        let rest = async move {
            match recording.await {
                (Ended::Completed, _) => tracing::info!(key, attempt, "the outcome is recorded at last"),
                (_, Some(rest)) => rest.await,
                _ => {}
            }
        };
        (Ended::NotRecorded, Some(rest.instrument(span).boxed()))
    }

    /// Tries to record a large outcome, one try at a time and all of them together within the time that its size allows,
    /// and completes without it otherwise.
    ///
    /// Only the time in tries counts: while the backend cannot be reached, a try is short.
    async fn record_large(self: Arc<Self>, outcome: Outcome, renewals: Renewals) -> (Ended, Option<Rest>) {
        let len = match &outcome {
            Outcome::Complete(Completion::Stored(payload)) => payload.len(),
            _ => 0,
        };
        let asked = Instant::now();
        let mut left = self.engine.deadline_of(self.claim.lease) + time_for(len);
        let mut pause = Duration::from_millis(50);
        let error = loop {
            let started = Instant::now();
            match self.settle_within(left, &outcome).await {
                Ok(Fenced::Applied) => {
                    observe::record(len);
                    return (Ended::Completed, None);
                }
                Ok(Fenced::Superseded) => {
                    self.log_superseded();
                    return (Ended::Superseded, None);
                }
                Err(error) => {
                    left = left.saturating_sub(started.elapsed());
                    if left.is_zero() || !error.is_transient() || asked.elapsed() >= self.claim.ttl {
                        break error;
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        };
        self.log_given_up(len, &error);
        drop::<Outcome>(outcome);
        self.conclude_small(Outcome::Complete(Completion::NotStored), renewals)
            .await
    }

    fn log_given_up(&self, len: usize, error: &BackendError) {
        tracing::warn!(
            key = %self.key.shown(),
            attempt = self.claim.attempt,
            bytes = len,
            error = error as &dyn Error,
            "the answer is too large for the way to the backend and is not stored; duplicates are told so. Look at the \
             line to the backend, or bound what is kept by `max_response`"
        );
    }
}
