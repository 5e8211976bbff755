//! The settings under which the world is explored, and their bounds.
//!
//! Owns which requests there are, their policy, how handlers end, and how many faults may happen.

use std::time::Duration;

use super::world::REQUESTS;
use crate::{AfterCrash, ClaimPolicy, Fingerprint};

/// The unit of time. All durations of the world are multiples.
pub(super) const TICK: Duration = ClaimPolicy::MIN;
/// The lease: long enough to be renewed before it lapses.
pub(super) const LEASE: u8 = 2;
/// The time to live of outcomes and lapsed claims.
pub(super) const TTL: u8 = 3;
/// The time to live of an outcome that is kept for a time of its own.
pub(super) const SHORT_TTL: u8 = 1;

/// How a handler ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Outcome {
    /// Its answer is kept for the claim's time to live.
    Keep,
    /// Its answer is kept for [`SHORT_TTL`].
    KeepFor,
    /// Its answer is kept by its own transaction. If the reply to the commit is lost, the claim is released: the release finds the
    /// outcome, or a transaction that was rolled back.
    Commit,
    /// It is recorded without its answer.
    NotStored,
    /// It is recorded that nobody knows whether it took effect.
    Unknown,
    /// Its claim is released.
    Release,
}

/// One exploration: the requests, their policy, and the bounds.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name in the figures.
    pub name: &'static str,
    pub(super) fingerprints: [Fingerprint; REQUESTS],
    pub(super) policy: ClaimPolicy,
    pub(super) outcomes: &'static [Outcome],
    pub(super) faults: u8,
}

const ONE: Fingerprint = Fingerprint::new(1, [1; 32]);
const OTHER: Fingerprint = Fingerprint::new(1, [2; 32]);
const EQUAL: [Fingerprint; REQUESTS] = [ONE; REQUESTS];
const ONE_DIFFERS: [Fingerprint; REQUESTS] = [ONE, ONE, OTHER];

const ALL: &[Outcome] = &[
    Outcome::Keep,
    Outcome::KeepFor,
    Outcome::Commit,
    Outcome::NotStored,
    Outcome::Unknown,
    Outcome::Release,
];
const USUAL: &[Outcome] = &[Outcome::Keep, Outcome::Release];

const POLICY: ClaimPolicy = ClaimPolicy::new(ticks(TTL)).with_lease(ticks(LEASE));

/// Retries, and one different request.
pub(super) const RERUN: Setting = Setting {
    name: "rerun",
    fingerprints: ONE_DIFFERS,
    policy: POLICY,
    outcomes: ALL,
    faults: FAULTS,
};

/// Up to three attempts.
pub(super) const EQUAL_REQUESTS: Setting = Setting {
    name: "rerun, equal requests",
    fingerprints: EQUAL,
    outcomes: USUAL,
    ..RERUN
};

/// No second attempt.
pub(super) const REFUSE: Setting = Setting {
    name: "refuse",
    policy: POLICY.with_after_crash(AfterCrash::Refuse),
    ..RERUN
};

/// No third attempt.
pub(super) const MAX_ATTEMPTS: Setting = Setting {
    name: "max_attempts = 2",
    policy: POLICY.with_max_attempts(2),
    ..EQUAL_REQUESTS
};

/// No attempt long after the first one.
pub(super) const RERUN_WITHIN: Setting = Setting {
    name: "rerun_within",
    policy: POLICY.with_rerun_within(ticks(WITHIN)),
    ..EQUAL_REQUESTS
};

/// Every setting. Together they reach every rule.
pub const SETTINGS: [Setting; 5] = [RERUN, EQUAL_REQUESTS, REFUSE, MAX_ATTEMPTS, RERUN_WITHIN];

/// How many faults may happen, unless [`Setting::with_faults`] says otherwise.
const FAULTS: u8 = 2;

/// Longer than one lease, so that there is a second attempt, and shorter than two, so that there is no third one.
const WITHIN: u8 = 3;

pub(super) const fn ticks(number: u8) -> Duration {
    TICK.saturating_mul(number as u32)
}

impl Setting {
    /// The same with `faults` faults.
    #[must_use]
    pub const fn with_faults(mut self, faults: u8) -> Self {
        self.faults = faults;
        self
    }

    /// The age from which on claims are not told apart by their age.
    pub(super) fn oldest(&self) -> u8 {
        if self.policy.rerun_within().is_some() {
            WITHIN + 1
        } else {
            0
        }
    }

    /// The names under which the world stays the same: permutations of equal requests.
    pub(super) fn renamings(&self) -> &'static [[u8; REQUESTS]] {
        const ALL_EQUAL: [[u8; REQUESTS]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        const FIRST_TWO: [[u8; REQUESTS]; 2] = [[0, 1, 2], [1, 0, 2]];
        if self.fingerprints == EQUAL {
            &ALL_EQUAL
        } else {
            &FIRST_TWO
        }
    }
}
