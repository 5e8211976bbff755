//! The decision over an existing record, as a pure function.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{Claim, Completion, Record};
use crate::{AfterCrash, ClaimPolicy, Fingerprint};

/// What a request gets if its key already has a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The stored answer (IDEM-2).
    Replay(Bytes),
    /// The handler ran, and its answer was not kept (IDEM-12).
    NotStored,
    /// Another request used this key (IDEM-3).
    Mismatch,
    /// An equal request is in flight; this much of its lease is left (IDEM-4).
    InFlight(Duration),
    /// The lease of this claim lapsed: run again in its place (IDEM-7).
    TakeOver(Claim),
    /// An earlier attempt ended without an outcome and its steps are kept: go on in its place.
    Continue(Claim),
    /// It is unknown whether the handler took effect, and it must not run again: its lease lapsed and the policy forbids another
    /// attempt (IDEM-7), or its outcome was recorded as unknown.
    OutcomeUnknown,
}

/// Decides what a request with `fingerprint` gets if `record` is under its key. `now` tells the time of day; it is asked only about a
/// lapsed claim under a policy with `rerun_within`.
///
/// A mismatch is checked first, because that answer must not depend on how far the other request has come.
#[must_use]
pub fn decide(
    record: Record,
    fingerprint: &Fingerprint,
    policy: &ClaimPolicy,
    now: impl FnOnce() -> SystemTime,
) -> Decision {
    let stored = match &record {
        Record::Claimed { claim, .. } | Record::Parked { claim } => &claim.fingerprint,
        Record::Completed { fingerprint, .. } => fingerprint,
    };
    if stored.differs_from(fingerprint) {
        return Decision::Mismatch;
    }
    match record {
        Record::Completed { completion, .. } => match completion {
            Completion::Stored(payload) => Decision::Replay(payload),
            Completion::NotStored => Decision::NotStored,
            Completion::Unknown => Decision::OutcomeUnknown,
        },
        Record::Claimed { remaining, .. } if !remaining.is_zero() => Decision::InFlight(remaining),
        Record::Claimed { claim, .. } => {
            if may_run_again(&claim, policy, now) {
                Decision::TakeOver(claim)
            } else {
                Decision::OutcomeUnknown
            }
        }
        // Its attempt is known to have ended, so neither `after_crash` nor `max_attempts` is about it.
        Record::Parked { claim } => {
            if is_young(&claim, policy, now) {
                Decision::Continue(claim)
            } else {
                Decision::OutcomeUnknown
            }
        }
    }
}

/// Whether the policy allows another attempt after the owner of a claim has let its lease lapse.
fn may_run_again(lapsed: &Claim, policy: &ClaimPolicy, now: impl FnOnce() -> SystemTime) -> bool {
    policy.after_crash() == AfterCrash::Rerun
        && policy.max_attempts().is_none_or(|most| lapsed.attempt < most)
        && is_young(lapsed, policy, now)
}

/// Whether the first attempt began recently enough for another one.
fn is_young(claim: &Claim, policy: &ClaimPolicy, now: impl FnOnce() -> SystemTime) -> bool {
    // A first attempt that began in the future is one of a process whose clock is ahead.
    let age = || now().duration_since(claim.began_at).unwrap_or_default();
    policy.rerun_within().is_none_or(|within| age() <= within)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClaimPolicy, Token};

    const POLICY: ClaimPolicy = ClaimPolicy::new(Duration::from_mins(1));
    const REFUSING: ClaimPolicy = POLICY.with_after_crash(AfterCrash::Refuse);
    const BEGAN: SystemTime = SystemTime::UNIX_EPOCH;
    const MINE: Fingerprint = Fingerprint::new(1, [7; 32]);
    const OTHER: Fingerprint = Fingerprint::new(1, [8; 32]);
    const OTHER_SCHEME: Fingerprint = Fingerprint::new(2, [8; 32]);

    fn claim(fingerprint: Fingerprint) -> Claim {
        Claim {
            token: Token::from_bytes([9; 16]),
            attempt: 3,
            began_at: BEGAN,
            ..Claim::first(fingerprint, &POLICY)
        }
    }

    fn held(fingerprint: Fingerprint) -> Record {
        Record::Claimed {
            claim: claim(fingerprint),
            remaining: Duration::from_millis(1),
        }
    }

    fn lapsed(fingerprint: Fingerprint) -> Record {
        Record::Claimed {
            claim: claim(fingerprint),
            remaining: Duration::ZERO,
        }
    }

    fn parked(fingerprint: Fingerprint) -> Record {
        let claim = claim(fingerprint);
        Record::Parked { claim }
    }

    fn done(fingerprint: Fingerprint, completion: Completion) -> Record {
        Record::Completed {
            fingerprint,
            completion,
        }
    }

    #[test]
    fn every_state_meets_every_fingerprint() {
        let payload = Bytes::from_static(b"201 Created");
        let stored = || Completion::Stored(payload.clone());
        let replay = || Decision::Replay(payload.clone());
        let in_flight = || Decision::InFlight(Duration::from_millis(1));
        let table = [
            (held(MINE), in_flight()),
            (held(OTHER), Decision::Mismatch),
            (held(Fingerprint::NONE), in_flight()),
            (held(OTHER_SCHEME), in_flight()),
            (lapsed(MINE), Decision::TakeOver(claim(MINE))),
            (lapsed(OTHER), Decision::Mismatch),
            (lapsed(Fingerprint::NONE), Decision::TakeOver(claim(Fingerprint::NONE))),
            (lapsed(OTHER_SCHEME), Decision::TakeOver(claim(OTHER_SCHEME))),
            (parked(MINE), Decision::Continue(claim(MINE))),
            (parked(OTHER), Decision::Mismatch),
            (parked(Fingerprint::NONE), Decision::Continue(claim(Fingerprint::NONE))),
            (done(MINE, stored()), replay()),
            (done(OTHER, stored()), Decision::Mismatch),
            (done(Fingerprint::NONE, stored()), replay()),
            (done(OTHER_SCHEME, stored()), replay()),
            (done(MINE, Completion::NotStored), Decision::NotStored),
            (done(OTHER, Completion::NotStored), Decision::Mismatch),
            (done(Fingerprint::NONE, Completion::NotStored), Decision::NotStored),
            (done(OTHER_SCHEME, Completion::NotStored), Decision::NotStored),
            (done(MINE, Completion::Unknown), Decision::OutcomeUnknown),
            (done(OTHER, Completion::Unknown), Decision::Mismatch),
        ];
        for (record, expected) in table {
            assert_eq!(decide(record.clone(), &MINE, &POLICY, || BEGAN), expected, "{record:?}");
            let refused = match expected {
                Decision::TakeOver(_) => Decision::OutcomeUnknown,
                expected => expected,
            };
            assert_eq!(
                decide(record.clone(), &MINE, &REFUSING, || BEGAN),
                refused,
                "{record:?}"
            );
        }
    }

    #[test]
    fn a_request_that_is_not_compared_never_mismatches() {
        for record in [
            held(OTHER),
            lapsed(OTHER),
            parked(OTHER),
            done(OTHER, Completion::NotStored),
        ] {
            assert_ne!(
                decide(record, &Fingerprint::NONE, &POLICY, || BEGAN),
                Decision::Mismatch
            );
        }
    }

    #[test]
    fn a_lapsed_claim_is_taken_over_within_the_bounds_of_its_policy() {
        let second = Duration::from_secs(1);
        let after = |age: Duration| BEGAN + age;
        let table = [
            (POLICY, after(second * 1_000), true),
            (POLICY.with_max_attempts(4), BEGAN, true),
            (POLICY.with_max_attempts(3), BEGAN, false),
            (POLICY.with_max_attempts(1), BEGAN, false),
            (POLICY.with_rerun_within(second), after(second), true),
            (
                POLICY.with_rerun_within(second),
                after(second + Duration::from_millis(1)),
                false,
            ),
            (
                POLICY.with_rerun_within(second),
                BEGAN.checked_sub(second * 9).expect("before 1970"),
                true,
            ),
            (POLICY.with_rerun_within(second).with_max_attempts(3), BEGAN, false),
        ];
        for (policy, now, expected) in table {
            let decision = decide(lapsed(MINE), &MINE, &policy, || now);
            assert_eq!(
                matches!(decision, Decision::TakeOver(_)),
                expected,
                "{policy:?} {now:?}"
            );
            if !expected {
                assert_eq!(decision, Decision::OutcomeUnknown);
            }
            assert_eq!(
                decide(held(MINE), &MINE, &policy, || now),
                Decision::InFlight(Duration::from_millis(1))
            );
            // Only the age bounds what goes on after an attempt that is known to have ended.
            let is_young = expected || policy.rerun_within().is_none_or(|within| now <= BEGAN + within);
            let goes_on = matches!(decide(parked(MINE), &MINE, &policy, || now), Decision::Continue(_));
            assert_eq!(goes_on, is_young, "{policy:?} {now:?}");
        }
    }
}
