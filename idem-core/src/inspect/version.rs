//! The version of a record: what a change by an operator is fenced by.
//!
//! Owns what tells a record from the same record a moment later, and its text. Does not own how a store compares it.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use super::StepsDigest;
use crate::Token;

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
