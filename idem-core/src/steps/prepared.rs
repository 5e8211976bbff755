//! A step that its caller records by itself, in the transaction of the step's effects.
//!
//! Owns looking such a step up, and what has to be recorded of it. Does not own the transaction.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Steps;
use super::attempt::Attempt;
use super::error::{StepError, StepErrorKind};
use super::recorded::{Input, Progress, Recorded};
use super::run::{Looked, digest};
use crate::{Claim, RecordKey};

/// What is known of a step before its transaction.
#[derive(Debug)]
pub enum LookedUp<'a, T> {
    /// It is recorded with this result.
    Recorded(T),
    /// It is not recorded: run it, and record it together with its effects.
    New(PreparedStep<'a>),
    /// The handler runs without a claim: run it, and record nothing.
    Unprotected,
}

/// A step that is to be recorded together with its effects.
#[derive(Debug)]
pub struct PreparedStep<'a> {
    attempt: &'a Attempt,
    name: &'static str,
    input: Option<Input>,
}

/// What has to be recorded of a step, by [`StepBackend::record_step`](super::StepBackend::record_step) or in the same way.
#[derive(Debug)]
pub struct StepRecord<'a> {
    attempt: &'a Attempt,
    name: &'static str,
    ended: Recorded,
    claim: Claim,
    bytes: Bytes,
}

impl Steps {
    /// The digest of a step's input, for [`look_up`](Self::look_up).
    ///
    /// # Errors
    ///
    /// [`StepErrorKind::NoSerdeForm`].
    pub fn digest(name: &'static str, input: &(impl Serialize + ?Sized)) -> Result<[u8; 32], StepError> {
        digest(name, input)
    }

    /// Looks up a step that its caller records by itself, and takes its name.
    ///
    /// # Errors
    ///
    /// Those of a step that is not run.
    pub async fn look_up<T: DeserializeOwned>(
        &self,
        name: &'static str,
        input: Option<[u8; 32]>,
    ) -> Result<LookedUp<'_, T>, StepError> {
        self.take_name(name)?;
        let Some(attempt) = self.recorded() else {
            return Ok(LookedUp::Unprotected);
        };
        match attempt.look(name, input).await? {
            Looked::Done(result) => Ok(LookedUp::Recorded(result)),
            Looked::New => Ok(LookedUp::New(PreparedStep { attempt, name, input })),
            Looked::Started => Err(attempt.unsettled(StepErrorKind::Interrupted, name)),
        }
    }
}

impl<'a> PreparedStep<'a> {
    /// The record's key.
    #[must_use]
    pub fn key(&self) -> &RecordKey {
        self.attempt.key()
    }

    /// How long a call about the claim may take.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.attempt.deadline()
    }

    /// What has to be recorded of the step, which ended with `result`. From now on the claim counts as one with steps.
    #[must_use]
    pub fn ended<T: Serialize>(&self, result: &T) -> StepRecord<'a> {
        let &Self { attempt, name, input } = self;
        let ended = attempt.ended(name, input, result);
        let bytes = ended.encode();
        StepRecord {
            attempt,
            name,
            claim: attempt.claim_to_record(),
            bytes,
            ended,
        }
    }

    /// Records by itself that the step has ended, without its result, because its effects may be there and its record is not. No
    /// later attempt runs it.
    ///
    /// # Errors
    ///
    /// [`StepErrorKind::Superseded`] or [`StepErrorKind::NotRecorded`]: a later attempt runs the step again.
    pub async fn record_without_result(&self) -> Result<(), StepError> {
        let ended = self.attempt.recorded(self.input, Progress::DoneWithout);
        self.attempt.end(self.name, &ended).await
    }
}

impl StepRecord<'_> {
    /// The record's key.
    #[must_use]
    pub fn key(&self) -> &RecordKey {
        self.attempt.key()
    }

    /// The claim.
    #[must_use]
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// The name of the step.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The bytes of the step.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Notes that the step is recorded.
    pub fn is_recorded(self) {
        let progress: &Progress = &self.ended.progress;
        self.attempt.note(self.name, progress);
    }
}
