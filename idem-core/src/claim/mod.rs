//! Claims, records, and what a duplicate gets.
//!
//! Owns the states a record goes through, absent → claimed → completed → absent, and the pure decision over them.
//! Owns neither time nor I/O: a backend says whether a lease has lapsed, by its own clock.

mod decide;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

pub use decide::{Decision, decide};

use crate::{ClaimPolicy, Fingerprint};

/// Names one claim among all that were ever made: 16 random bytes, also in processes that were forked or started from one
/// snapshot.
///
/// Only the holder of the token may renew, complete or release the claim (IDEM-8).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token([u8; Token::LEN]);

impl Token {
    /// Length in bytes.
    pub const LEN: usize = 16;

    /// A token that no other claim has.
    #[must_use]
    pub fn random() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self::drawn(rand::random(), now.map_or(0, |now| now.as_nanos()))
    }

    /// Of a random number and the time. A process that is forked, or started from a snapshot, draws the same numbers as another
    /// one, but not at the same nanosecond.
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
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({:032x})", u128::from_be_bytes(self.0))
    }
}

/// A claim as its owner writes it: the right to run one request, for as long as the lease is renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose claim it is.
    pub token: Token,
    /// Which run of this request it is: 1, and one more each time a lapsed claim is taken over.
    pub attempt: u32,
    /// Which request it is for.
    pub fingerprint: Fingerprint,
    /// How long the claim holds without being renewed, in whole milliseconds.
    pub lease: Duration,
    /// How long the outcome is kept from its completion on, in whole milliseconds; a lapsed claim is kept as long.
    pub ttl: Duration,
}

impl Claim {
    /// The claim of a first attempt, under a fresh token.
    #[must_use]
    pub fn first(fingerprint: Fingerprint, policy: &ClaimPolicy) -> Self {
        Self {
            token: Token::random(),
            attempt: 1,
            fingerprint,
            lease: policy.lease(),
            ttl: policy.ttl(),
        }
    }
}

/// How a claim ended, when it ended by an outcome that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The answer, as the integration encoded it.
    Stored(Bytes),
    /// The handler ran, but its answer is not kept (IDEM-12).
    NotStored,
}

/// What is stored under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Somebody has the right to run, or had it and let it lapse.
    Claimed {
        /// The claim, exactly as written.
        claim: Claim,
        /// What is left of the lease by the backend's clock; zero when it has lapsed.
        remaining: Duration,
    },
    /// The request was run and has an outcome.
    Completed {
        /// The request the outcome belongs to.
        fingerprint: Fingerprint,
        /// The outcome.
        completion: Completion,
    },
}

/// What became of an attempt to claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquisition {
    /// The claim is written and its lease runs.
    Acquired,
    /// Nothing was changed; this is in the way.
    Existing(Record),
}

/// What became of an operation that only the owner of a claim may perform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a superseded owner has to know"]
pub enum Fenced {
    /// Done, now or, where the call may be repeated, by an earlier try.
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
