//! Recording an outcome that is too large for the usual deadline.
//!
//! Owns how long recording a large outcome is tried:
//!
//! - If the backend answers, but the outcome does not arrive in the time that its size allows, the outcome is given up. The
//!   record is completed without the answer (IDEM-12), so that the handler does not run again.
//! - If the backend is unavailable, recording is retried for as long as for a small outcome.
//! - The client waits no longer than for a small outcome. After that, recording continues in the background.
//!
//! Does not own how a small outcome is recorded: [`recording`](super::recording).

use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument as _;

use super::attended::RemainingWork;
use super::deadline::{LARGE_PAYLOAD, bounded, is_stopped, time_for, untimed};
use super::renewals::Renewals;
use super::run::Work;
use super::{RecordOutcome, RunOutcome};
use crate::observe::{self, Call, Timing};
use crate::{BackendError, BackendErrorKind, Completion, Fenced};

/// The time between two checks whether the backend still answers during a transfer.
const BETWEEN_SIGNS: Duration = Duration::from_millis(250);

/// The error of a try that had used all the time that its size allows.
struct OutOfTime(BackendError);

fn out_of_time(waited: Duration) -> BackendError {
    BackendError::new(BackendErrorKind::Timeout, format!("no answer within {waited:?}"))
}

/// Whether the outcome is too large for the usual deadline.
pub(super) fn is_large(outcome: &RecordOutcome) -> bool {
    payload_len(outcome) > LARGE_PAYLOAD
}

/// The length of the answer that is stored; zero if none is.
fn payload_len(outcome: &RecordOutcome) -> usize {
    match outcome {
        RecordOutcome::Complete {
            completion: Completion::Stored(payload),
            ..
        } => payload.len(),
        _ => 0,
    }
}

impl Work {
    /// Records a large outcome. If that takes longer than the deadline, the rest is returned as remaining work.
    pub(super) async fn record_large(
        self: Arc<Self>,
        outcome: RecordOutcome,
        renewals: Renewals,
    ) -> (RunOutcome, Option<RemainingWork>) {
        let (key, attempt) = (self.key.shown().to_string(), self.claim.attempt);
        let deadline = self.engine.deadline_of(self.claim.lease);
        let span = self.span.clone();
        let mut recording = self.try_to_record_large(outcome, renewals).boxed();
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
                (RunOutcome::Completed, _) => tracing::info!(key, attempt, "the outcome is recorded at last"),
                (_, Some(rest)) => rest.await,
                _ => {}
            }
        };
        (RunOutcome::NotRecorded, Some(rest.instrument(span).boxed()))
    }

    /// Tries to record a large outcome, one try at a time. If that fails for good, completes the record without the answer.
    ///
    /// A try that runs out of time ends the loop: the backend answered all the time, so the connection is too slow. While the
    /// backend is unavailable, the loop continues until the outcome's `ttl` has passed.
    async fn try_to_record_large(
        self: Arc<Self>,
        outcome: RecordOutcome,
        renewals: Renewals,
    ) -> (RunOutcome, Option<RemainingWork>) {
        let (len, ttl) = (payload_len(&outcome), outcome.ttl(&self.claim));
        let asked = Instant::now();
        let time = self.engine.deadline_of(self.claim.lease) + time_for(len);
        let mut pause = Duration::from_millis(50);
        let error = loop {
            let left = ttl.saturating_sub(asked.elapsed());
            match timeout(left, self.transfer(time, &outcome)).await {
                Ok(Ok(Ok(Fenced::Applied))) => {
                    observe::record(len);
                    return (RunOutcome::Completed, None);
                }
                Ok(Ok(Ok(Fenced::Superseded))) => {
                    self.log_superseded();
                    return (RunOutcome::Superseded, None);
                }
                Ok(Ok(Err(error))) => {
                    if !error.is_transient() || asked.elapsed() >= ttl {
                        break error;
                    }
                }
                Ok(Err(OutOfTime(error))) => break error,
                Err(_elapsed) => break out_of_time(ttl),
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        };
        self.log_given_up(len, &error);
        drop::<RecordOutcome>(outcome);
        let without_answer = RecordOutcome::Complete {
            completion: Completion::NotStored,
            keep_for: Some(ttl),
        };
        self.record_small(without_answer, renewals).await
    }

    /// Makes one try. It has `time`, and ends earlier if the backend stops answering.
    async fn transfer(
        &self,
        time: Duration,
        outcome: &RecordOutcome,
    ) -> Result<Result<Fenced, BackendError>, OutOfTime> {
        let (call, answering) = self.recording_call(outcome);
        let timing = Timing::start(call);
        let while_it_answers = async {
            match select(answering, pin!(self.falls_silent())).await {
                Either::Left((answer, _)) => answer,
                Either::Right((silent, _)) => Err(silent),
            }
        };
        match bounded(time, while_it_answers).await {
            Ok(answer) => {
                timing.end(&answer);
                Ok(answer)
            }
            Err(waited) => {
                let answer = Err::<Fenced, _>(out_of_time(waited));
                timing.end(&answer);
                answer.map(Ok).map_err(OutOfTime)
            }
        }
    }

    /// Checks repeatedly whether the backend answers, and resolves when it does not.
    ///
    /// The check is a renewal, which is small and goes to the same server as the outcome. While it is on its way, the clock of
    /// the transfer is stopped. A failed check is repeated once, because it may be the connection of the small calls that has
    /// failed.
    async fn falls_silent(&self) -> BackendError {
        let Self { engine, key, claim, .. } = self;
        let now = self.claim_now();
        let renewed = || engine.within_deadline(Call::Renew, claim.lease, engine.0.backend.renew(key, &now));
        let is_away = |answer: &Result<Fenced, BackendError>| answer.as_ref().is_err_and(BackendError::is_transient);
        loop {
            sleep(BETWEEN_SIGNS).await;
            if is_stopped() {
                // The transfer is waiting for its turn and has not begun.
                continue;
            }
            let mut answer = untimed(renewed()).await;
            if is_away(&answer) {
                answer = untimed(renewed()).await;
            }
            if let Err(error) = answer
                && error.is_transient()
            {
                return error;
            }
        }
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
