//! An outcome that is too large for the deadline of any call.
//!
//! Owns how long recording it is tried, and that it ends: what has not come through in the time that its size allows,
//! although the backend was there, is given up, and the record completes without it (IDEM-12), so that the handler never
//! runs again for that. An outage costs it no more than it costs a small outcome. A handler's client waits no longer for it
//! than for any other outcome.

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

/// How long a transfer goes on between two signs of life of the backend.
const BETWEEN_SIGNS: Duration = Duration::from_millis(250);

/// What came of a try that had all the time that its size allows.
struct OutOfTime(BackendError);

fn out_of_time(waited: Duration) -> BackendError {
    BackendError::new(BackendErrorKind::Timeout, format!("no answer within {waited:?}"))
}

/// Whether the outcome is too large for the deadline of any call.
pub(super) fn is_large(outcome: &RecordOutcome) -> bool {
    matches!(outcome, RecordOutcome::Complete(Completion::Stored(payload)) if payload.len() > LARGE_PAYLOAD)
}

impl Work {
    /// Records a large outcome; where that takes longer than the deadline, what is left is to go on with it.
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

    /// Tries to record a large outcome, one try at a time, and completes without it where its time has run out.
    ///
    /// Only a try that runs out of time ends this: then the backend answered all the while, and the line is too slow. While
    /// the backend is away, this goes on as [`keep_recording`](Self::keep_recording) does.
    async fn try_to_record_large(
        self: Arc<Self>,
        outcome: RecordOutcome,
        renewals: Renewals,
    ) -> (RunOutcome, Option<RemainingWork>) {
        let len = match &outcome {
            RecordOutcome::Complete(Completion::Stored(payload)) => payload.len(),
            _ => 0,
        };
        let asked = Instant::now();
        let time = self.engine.deadline_of(self.claim.lease) + time_for(len);
        let mut pause = Duration::from_millis(50);
        let error = loop {
            let left = self.claim.ttl.saturating_sub(asked.elapsed());
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
                    if !error.is_transient() || asked.elapsed() >= self.claim.ttl {
                        break error;
                    }
                }
                Ok(Err(OutOfTime(error))) => break error,
                Err(_elapsed) => break out_of_time(self.claim.ttl),
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        };
        self.log_given_up(len, &error);
        drop::<RecordOutcome>(outcome);
        self.record_small(RecordOutcome::Complete(Completion::NotStored), renewals)
            .await
    }

    /// One try, which has `time` while the backend answers.
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

    /// Asks the backend for a sign of life again and again, and resolves when it gives none.
    ///
    /// The time of the transfer beside this stands still meanwhile. What is asked is a renewal: it is small, and leads to
    /// where the outcome goes. It is asked twice, as the connection of small calls may be the one that has failed.
    async fn falls_silent(&self) -> BackendError {
        let Self { engine, key, claim, .. } = self;
        let renewed = || engine.within_deadline(Call::Renew, claim.lease, engine.0.backend.renew(key, claim));
        let is_away = |answer: &Result<Fenced, BackendError>| answer.as_ref().is_err_and(BackendError::is_transient);
        loop {
            sleep(BETWEEN_SIGNS).await;
            if is_stopped() {
                // It waits for its turn: nothing is on its way.
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
