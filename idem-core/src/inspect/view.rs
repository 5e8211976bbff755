//! A record as an operator sees it.
//!
//! Owns what is shown of a record and of a step, and the version by which a change is fenced. Does not own how it is printed.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::StepsDigest;
use crate::steps::RecordedSteps;
use crate::{Claim, Completion, Fingerprint, Owner, Record, RecordKey, Token};

/// How many bytes of a payload a scan returns, at most: enough to tell an integration the status of a response.
pub const HEAD_LEN: usize = 32;

/// How far a record has come. Under one token it only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// An attempt has claimed the key. Its lease may have lapsed.
    Claimed,
    /// An attempt has ended without an outcome, and its steps are kept.
    Parked,
    /// The record has its outcome.
    Completed,
    /// This version of idem cannot read the record. It may be anything.
    Unreadable,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Claimed, Self::Parked, Self::Completed, Self::Unreadable];

    fn name(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Parked => "parked",
            Self::Completed => "completed",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What a record was when an operator saw it: the token of its claim, its phase, and its steps.
///
/// The token alone would not do. An owner that is late completes its claim, or records a step, under the same token. An operator who has
/// seen a lapsed claim must not remove the answer that has come since, and one who has seen a step begun must not call it undone once
/// its end is recorded.
///
/// ```
/// use idem_core::Token;
/// use idem_core::inspect::{Phase, RecordVersion};
///
/// let version = RecordVersion::new(Token::from_bytes([7; 16]), Phase::Claimed);
/// assert_eq!(version.to_string(), "claimed-07070707070707070707070707070707");
/// assert_eq!("claimed-07070707070707070707070707070707".parse(), Ok(version));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordVersion {
    /// The token of the claim, also once it is completed. Of an unreadable record, a digest of its bytes.
    pub token: Token,
    /// How far the record had come.
    pub phase: Phase,
    /// The steps that it had.
    pub steps: StepsDigest,
}

impl RecordVersion {
    /// The version of a record without steps.
    #[must_use]
    pub const fn new(token: Token, phase: Phase) -> Self {
        let steps = StepsDigest::NONE;
        Self { token, phase, steps }
    }

    /// The version of a record that cannot be read, and that has these bytes.
    #[must_use]
    pub fn of_unreadable(bytes: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        let mut token = [0; Token::LEN];
        token.copy_from_slice(&digest[..Token::LEN]);
        Self::new(Token::from_bytes(token), Phase::Unreadable)
    }

    /// Whether the other version has the same token and phase, whatever its steps.
    #[must_use]
    pub fn is_of_same_claim(&self, other: &Self) -> bool {
        (self.token, self.phase) == (other.token, other.phase)
    }
}

impl fmt::Display for RecordVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = u128::from_be_bytes(self.token.to_bytes());
        write!(f, "{}-{token:032x}", self.phase.name())?;
        match self.steps {
            StepsDigest::NONE => Ok(()),
            StepsDigest(digest) => write!(f, "-{digest:08x}"),
        }
    }
}

/// A text is not a [`RecordVersion`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionError;

impl fmt::Display for VersionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a version is `claimed`, `parked`, `completed` or `unreadable`, then `-` and 32 hexadecimal digits, and for a record with steps `-` and 8 more",
        )
    }
}

impl std::error::Error for VersionError {}

impl FromStr for RecordVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let (name, digits) = text.split_once('-').ok_or(VersionError)?;
        let phase = Phase::ALL.into_iter().find(|phase| phase.name() == name);
        let (digits, steps) = digits
            .split_once('-')
            .map_or((digits, None), |(token, steps)| (token, Some(steps)));
        let is_hexadecimal =
            |digits: &str, len| digits.len() == len && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let token = u128::from_str_radix(digits, 16).ok();
        let token = token.filter(|_| is_hexadecimal(digits, 2 * Token::LEN));
        let steps = match steps {
            None => Some(StepsDigest::NONE),
            Some(steps) => u32::from_str_radix(steps, 16)
                .ok()
                .filter(|digest| is_hexadecimal(steps, 8) && *digest != 0)
                .map(StepsDigest),
        };
        match (phase, token, steps) {
            (Some(phase), Some(token), Some(steps)) => Ok(Self {
                token: Token::from_bytes(token.to_be_bytes()),
                phase,
                steps,
            }),
            _ => Err(VersionError),
        }
    }
}

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

    /// The steps of a record that is listed without them: none, if it has none.
    #[must_use]
    pub fn listed_steps(&self) -> Option<StepsDigest> {
        let has_steps = matches!(self, Self::Claimed { has_steps: true, .. } | Self::Parked);
        (!has_steps).then_some(StepsDigest::NONE)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_back_and_nothing_else_is_one() {
        for phase in Phase::ALL {
            let token = Token::random();
            for steps in [&[][..], &[("charge", &b"1"[..])]] {
                let steps = StepsDigest::of(steps.iter().copied());
                let version = RecordVersion { token, phase, steps };
                assert_eq!(version.to_string().parse(), Ok(version));
            }
        }
        let digits = "0".repeat(32);
        for text in [
            "",
            "claimed",
            "claimed-",
            "claimed-7",
            &format!("lapsed-{digits}"),
            &format!("claimed-{digits}0"),
            &format!("claimed-+{}", "0".repeat(31)),
            &format!("claimed-{digits}-"),
            &format!("claimed-{digits}-1234567"),
            &format!("claimed-{digits}-00000000"),
            &format!("claimed-{digits}-12345678-1"),
            &format!(" claimed-{digits}"),
        ] {
            assert_eq!(text.parse::<RecordVersion>(), Err(VersionError), "{text:?}");
        }
    }
}
