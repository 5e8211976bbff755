//! What is explored: the function, the decision, and how an owner deviates from the protocol.
//!
//! Owns the right subject. Does not own the wrong ones: [`mutants`](super::mutants).

use std::time::SystemTime;

use crate::spec::{Call, Reply, State, Time, step};
use crate::{ClaimPolicy, Decision, Fingerprint, Record, decide};

/// The type of [`step`].
pub(super) type Step = fn(&State, Time, &Call) -> (State, Reply);
/// The type of [`decide`].
pub(super) type Decide = fn(Record, &Fingerprint, &ClaimPolicy, SystemTime) -> Decision;

/// A way in which an owner breaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deviation {
    /// It releases the claim of a running handler when its client leaves.
    ReleasesOnHangUp,
    /// It releases a claim whose completion was not answered.
    ReleasesUnrecorded,
    /// It releases a claim that it took over and gave up before its handler started.
    ReleasesLaterAttempts,
    /// It runs its handler though its claim was not answered.
    RunsUnsure,
    /// It takes a claim over without counting the attempt.
    KeepsAttempt,
    /// It takes a claim over as if the first attempt began now.
    BeginsAnew,
}

/// The function, the decision and the protocol under exploration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub(super) step: Step,
    pub(super) decide: Decide,
    pub(super) deviation: Option<Deviation>,
}

impl Subject {
    /// The specification itself.
    pub(super) const RIGHT: Self = Self {
        step,
        decide: |record, fingerprint, policy, now| decide(record, fingerprint, policy, || now),
        deviation: None,
    };

    pub(super) fn deviates(&self, by: Deviation) -> bool {
        self.deviation == Some(by)
    }
}
