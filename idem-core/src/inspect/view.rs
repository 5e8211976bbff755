//! A record as an operator sees it.
//!
//! Owns what is shown of a record and of a step. Does not own how it is printed.

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{Phase, RecordVersion, StepsDigest};
use crate::steps::RecordedSteps;
use crate::{Claim, Completion, Fingerprint, Owner, Record, RecordKey, Token};

/// How many bytes of a payload a scan returns, at most: enough to tell an integration the status of a response.
pub const HEAD_LEN: usize = 32;

/// A record in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSummary {
    /// Operation, scope and key.
    pub key: RecordKey,
    /// The token of the claim, also once it is completed.
    pub token: Token,
    /// The number of the last attempt.
    pub attempt: u32,
    /// Identifies the request.
    pub fingerprint: Fingerprint,
    /// When attempt 1 began, by the clock of the process that ran it.
    pub began_at: SystemTime,
    /// The process that made the last attempt.
    pub owner: Owner,
    /// How far the record has come.
    pub state: RecordState,
    /// How long until the record is gone, if nothing else happens.
    pub expires_in: Duration,
    /// The steps that it has; `None` if they were not read. Most stores list a record without reading its steps.
    pub steps: Option<StepsDigest>,
}

impl RecordSummary {
    /// What a change of this record is fenced by; `None` if its steps were not read. [`RecordDetails::version`] has it for every record.
    #[must_use]
    pub fn version(&self) -> Option<RecordVersion> {
        let (token, phase, steps) = (self.token, self.state.phase(), self.steps?);
        Some(RecordVersion { token, phase, steps })
    }
}

/// How far a record has come, without the payload.
#[derive(Clone, PartialEq, Eq)]
pub enum RecordState {
    /// An attempt has claimed the key.
    Claimed {
        /// The rest of the lease; zero if it has lapsed.
        remaining: Duration,
        /// Whether steps are recorded.
        has_steps: bool,
    },
    /// An attempt has ended without an outcome, and its steps are kept.
    Parked,
    /// The handler ran, and its answer is kept.
    Stored {
        /// The length of the payload, in bytes.
        len: u64,
        /// The beginning of the payload, [`HEAD_LEN`] bytes at most. Empty if the store would have to look elsewhere for it.
        head: Bytes,
    },
    /// The handler ran, and its answer is not kept.
    NotStored,
    /// The handler ran, and it is unknown whether it took effect.
    Unknown,
}

/// A payload may hold what clients keep secret, so only its length is shown.
impl fmt::Debug for RecordState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claimed { remaining, has_steps } => {
                let mut shown = f.debug_struct("Claimed");
                shown
                    .field("remaining", remaining)
                    .field("has_steps", has_steps)
                    .finish()
            }
            Self::Parked => f.write_str("Parked"),
            Self::Stored { len, .. } => f.debug_struct("Stored").field("len", len).finish_non_exhaustive(),
            Self::NotStored => f.write_str("NotStored"),
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}

impl RecordState {
    /// How far the record has come, as a change of it is fenced.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self {
            Self::Claimed { .. } => Phase::Claimed,
            Self::Parked => Phase::Parked,
            Self::Stored { .. } | Self::NotStored | Self::Unknown => Phase::Completed,
        }
    }

    /// Whether steps are recorded.
    #[must_use]
    pub fn has_steps(&self) -> bool {
        matches!(self, Self::Claimed { has_steps: true, .. } | Self::Parked)
    }

    /// The steps of a record that is listed without them: none, if it has none.
    #[must_use]
    pub fn listed_steps(&self) -> Option<StepsDigest> {
        (!self.has_steps()).then_some(StepsDigest::NONE)
    }

    /// The state of a completion.
    #[must_use]
    pub fn of_completion(completion: &Completion) -> Self {
        match completion {
            Completion::Stored(payload) => Self::Stored {
                len: payload.len() as u64,
                head: payload.slice(..payload.len().min(HEAD_LEN)),
            },
            Completion::NotStored => Self::NotStored,
            Completion::Unknown => Self::Unknown,
        }
    }
}

/// Everything that is stored about one record.
#[derive(Clone, PartialEq, Eq)]
pub struct RecordDetails {
    /// What a list shows.
    pub summary: RecordSummary,
    /// The record as [`Backend::read`](crate::Backend::read) returns it.
    pub record: Record,
    /// Its steps, in any order.
    pub steps: RecordedSteps,
}

/// Shows neither the payload nor the results of steps.
impl fmt::Debug for RecordDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<_> = self.steps.iter().map(|(name, _)| name).collect();
        let mut shown = f.debug_struct("RecordDetails");
        shown
            .field("summary", &self.summary)
            .field("steps", &steps)
            .finish_non_exhaustive()
    }
}

impl RecordDetails {
    /// The steps, sorted by name.
    #[must_use]
    pub fn steps(&self) -> Vec<StepView> {
        let mut steps: Vec<_> = self.steps.iter().map(StepView::of).collect();
        steps.sort_by(|left, right| left.name.cmp(&right.name));
        steps
    }

    /// The details of a record that was read with its steps.
    ///
    /// `claim` has the parts of the record that a completion has too; its lease and its `ttl` are not used.
    #[must_use]
    pub fn of(key: &RecordKey, claim: &Claim, record: Record, steps: RecordedSteps, expires_in: Duration) -> Self {
        let state = match &record {
            Record::Claimed { claim, remaining } => RecordState::Claimed {
                remaining: *remaining,
                has_steps: claim.has_steps,
            },
            Record::Parked { .. } => RecordState::Parked,
            Record::Completed { completion, .. } => RecordState::of_completion(completion),
        };
        let summary = RecordSummary {
            key: key.clone(),
            token: claim.token,
            attempt: claim.attempt,
            fingerprint: claim.fingerprint,
            began_at: claim.began_at,
            owner: claim.owner,
            state,
            expires_in,
            steps: Some(digest_of(&steps)),
        };
        Self { summary, record, steps }
    }

    /// What a change of this record is fenced by.
    #[must_use]
    pub fn version(&self) -> RecordVersion {
        RecordVersion {
            token: self.summary.token,
            phase: self.summary.state.phase(),
            steps: digest_of(&self.steps),
        }
    }

    /// Whether the record has had steps and has none: the store has lost them.
    #[must_use]
    pub fn has_lost_steps(&self) -> bool {
        self.summary.state.has_steps() && self.steps.is_empty()
    }

    /// The steps at which the next attempt stops, sorted by name; at one that has started, unless its handler finds out by `reconcile`
    /// whether it happened. A completed record has none.
    #[must_use]
    pub fn unsettled_steps(&self) -> Vec<StepView> {
        let mut steps = self.steps();
        steps.retain(|step| step.state.is_unsettled());
        steps
    }
}

fn digest_of(steps: &RecordedSteps) -> StepsDigest {
    StepsDigest::of(steps.iter().map(|(name, step)| (name.as_str(), &step[..])))
}

/// A step as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepView {
    /// Its name.
    pub name: String,
    /// The attempt that recorded it; `None` if the bytes cannot be read.
    pub attempt: Option<u32>,
    /// How far it has come.
    pub state: StepState,
}

/// How far a step has come.
#[derive(Clone, PartialEq, Eq)]
pub enum StepState {
    /// Its body may have begun. If its attempt has ended, it is unknown whether the step happened.
    Started,
    /// It has happened, with this result as JSON.
    Done(Bytes),
    /// It has happened, and its result is not kept.
    DoneWithoutResult,
    /// Its bytes are of another version, or broken.
    Unreadable,
}

impl StepState {
    /// Whether an attempt that finds the step like this may not go on: whether it happened is not known, or its result is not.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        match self {
            Self::Started | Self::DoneWithoutResult | Self::Unreadable => true,
            Self::Done(_) => false,
        }
    }
}

/// Of a result, only the length is shown.
impl fmt::Debug for StepState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("Started"),
            Self::Done(result) => f.debug_struct("Done").field("len", &result.len()).finish(),
            Self::DoneWithoutResult => f.write_str("DoneWithoutResult"),
            Self::Unreadable => f.write_str("Unreadable"),
        }
    }
}

/// One record of a [`Page`](super::Page).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// A record.
    Record(RecordSummary),
    /// A record that this version cannot read.
    Unreadable(Unreadable),
}

impl Listed {
    /// The record key, also of a record that cannot be read; `None` if the store's name of it is not a record key.
    #[must_use]
    pub fn key(&self) -> Option<RecordKey> {
        match self {
            Self::Record(record) => Some(record.key.clone()),
            Self::Unreadable(unreadable) => RecordKey::from_encoded(&unreadable.name),
        }
    }

    /// The record key as text, or the store's name of the record where that is not a record key.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Record(record) => record.key.as_str(),
            Self::Unreadable(unreadable) => &unreadable.name,
        }
    }
}

/// A record that this version cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The record key, or the store's name of the record where that is not a record key.
    pub name: String,
    /// Why it cannot be read.
    pub why: String,
    /// Its version, by which it can be forgotten. `None` if its name is not a record key, or if another program has written it.
    pub version: Option<RecordVersion>,
}
