//! Claims, records, and the decision what a duplicate gets.
//!
//! Owns the states of a record, absent → claimed → completed → absent, with parked between two attempts that have steps, and the
//! pure decision over them.
//! Owns neither time nor I/O: a backend says whether a lease has lapsed, by its own clock.

mod decide;
mod owner;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

pub use decide::{Decision, decide};
pub use owner::Owner;
use tokio::time::Instant;

use crate::{ClaimPolicy, Fingerprint};

/// The fencing token of a claim: 16 random bytes, unique among all claims that were ever made.
///
/// Only the holder of the token may renew, complete or release the claim (IDEM-8). Tokens are unique also in processes that
/// were forked, or started from one snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token([u8; Token::LEN]);

impl Token {
    /// Length in bytes.
    pub const LEN: usize = 16;

    /// A new token, which no other claim has.
    #[must_use]
    pub fn random() -> Self {
        Self::drawn_at(SystemTime::now())
    }

    fn drawn_at(now: SystemTime) -> Self {
        let now = now.duration_since(UNIX_EPOCH);
        Self::drawn(rand::random(), now.map_or(0, |now| now.as_nanos()))
    }

    /// Combines a random number and the time. Two processes that were forked, or started from one snapshot, draw the same
    /// random numbers, but not at the same nanosecond.
    fn drawn(random: u128, nanoseconds: u128) -> Self {
        Self((random ^ nanoseconds).to_ne_bytes())
    }

    /// The stored form.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        self.0
    }

    /// Reads [`Token::to_bytes`] back.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({:032x})", u128::from_be_bytes(self.0))
    }
}

/// A claim: the right to run one request, for as long as its owner renews the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Identifies the owner.
    pub token: Token,
    /// The number of this run of the request: 1, and one more each time a lapsed claim is taken over.
    pub attempt: u32,
    /// Identifies the request.
    pub fingerprint: Fingerprint,
    /// How long the claim holds without being renewed, in whole milliseconds.
    pub lease: Duration,
    /// How long the outcome is kept after its completion, unless the completion says otherwise, in whole milliseconds. A lapsed
    /// claim is kept as long.
    pub ttl: Duration,
    /// When attempt 1 began, by the clock of the process that ran it, in whole milliseconds. A claim that takes another one over
    /// keeps this time.
    pub began_at: SystemTime,
    /// The process that holds the claim, for logs and operators.
    pub owner: Owner,
    /// Whether steps are recorded under the claim, by this attempt or an earlier one.
    pub has_steps: bool,
}

impl Claim {
    /// The claim of a first attempt that begins now, under a fresh token, owned by this process.
    #[must_use]
    pub fn first(fingerprint: Fingerprint, policy: &ClaimPolicy) -> Self {
        let now = wall_clock();
        Self {
            token: Token::drawn_at(now),
            attempt: 1,
            fingerprint,
            lease: policy.lease(),
            ttl: policy.ttl(),
            began_at: whole_millis(now),
            owner: Owner::this_process(),
            has_steps: false,
        }
    }
}

/// The time in whole milliseconds, as it is stored.
pub(crate) fn whole_millis(time: SystemTime) -> SystemTime {
    time_from_millis(millis_of_time(time))
}

/// The time of day. While tokio's clock is paused, it stands still too.
pub(crate) fn wall_clock() -> SystemTime {
    let real = std::time::Instant::now();
    let tokio = Instant::now().into_std();
    let now = SystemTime::now();
    // Tokio's clock is the real one, unless a test has paused it.
    match tokio.checked_duration_since(real) {
        Some(ahead) => now + ahead,
        None => now.checked_sub(real - tokio).unwrap_or(now),
    }
}

/// The stored form of [`Claim::began_at`]: milliseconds since 1970.
#[must_use]
pub fn millis_of_time(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Reads [`millis_of_time`] back.
#[must_use]
pub fn time_from_millis(millis: u64) -> SystemTime {
    let since = Duration::from_millis(millis);
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}

/// The outcome of a completed claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The answer, as the integration encoded it.
    Stored(Bytes),
    /// The handler ran, but its answer is not kept (IDEM-12).
    NotStored,
    /// The handler ran, and it is unknown whether it took effect. Nothing may run again under this record.
    Unknown,
}

/// What is stored under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An attempt has the right to run, or had it and let its lease lapse.
    Claimed {
        /// The claim, exactly as written.
        claim: Claim,
        /// The rest of the lease by the backend's clock; zero if it has lapsed.
        remaining: Duration,
    },
    /// An attempt has ended without an outcome, and its steps are kept for the next one.
    Parked {
        /// The claim of the attempt, which has no owner any more.
        claim: Claim,
    },
    /// The handler ran, and the record has its outcome.
    Completed {
        /// The request the outcome belongs to.
        fingerprint: Fingerprint,
        /// The outcome.
        completion: Completion,
    },
}

/// The result of a call that claims a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquisition {
    /// The claim is written and its lease runs.
    Acquired,
    /// This record is under the key, and nothing was changed.
    Existing(Record),
}

/// The result of a call that only the owner of a claim may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a superseded owner has to know"]
pub enum Fenced {
    /// The call took effect: this one, or an earlier try of a call that may be repeated.
    Applied,
    /// The claim is no longer there under this token; nothing was changed.
    Superseded,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_random_number_drawn_at_two_times_makes_two_tokens() {
        assert_ne!(Token::drawn(7, 1_000), Token::drawn(7, 1_001));
        assert_ne!(Token::random(), Token::random());
    }
}
