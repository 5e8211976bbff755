//! Wrong decisions.

use std::time::{Duration, SystemTime};

use crate::{AfterCrash, ClaimPolicy, Completion, Decision, Fingerprint, Record, decide};

pub(super) fn fingerprint_ignored(record: Record, _: &Fingerprint, policy: &ClaimPolicy, now: SystemTime) -> Decision {
    decide(record, &Fingerprint::NONE, policy, || now)
}

pub(super) fn mismatch_after_in_flight(
    record: Record,
    fingerprint: &Fingerprint,
    policy: &ClaimPolicy,
    now: SystemTime,
) -> Decision {
    match record {
        Record::Claimed { remaining, .. } if !remaining.is_zero() => Decision::InFlight(remaining),
        record => decide(record, fingerprint, policy, || now),
    }
}

pub(super) fn in_flight_is_unknown(
    record: Record,
    fingerprint: &Fingerprint,
    policy: &ClaimPolicy,
    now: SystemTime,
) -> Decision {
    match decide(record, fingerprint, policy, || now) {
        Decision::InFlight(_) => Decision::OutcomeUnknown,
        decision => decision,
    }
}

pub(super) fn replay_says_not_stored(
    record: Record,
    fingerprint: &Fingerprint,
    policy: &ClaimPolicy,
    now: SystemTime,
) -> Decision {
    match record {
        Record::Completed { fingerprint: of, .. } => {
            let record = Record::Completed {
                fingerprint: of,
                completion: Completion::NotStored,
            };
            decide(record, fingerprint, policy, || now)
        }
        record @ (Record::Claimed { .. } | Record::Parked { .. }) => decide(record, fingerprint, policy, || now),
    }
}

pub(super) fn refuse_reruns(
    record: Record,
    fingerprint: &Fingerprint,
    policy: &ClaimPolicy,
    now: SystemTime,
) -> Decision {
    decide(record, fingerprint, &policy.with_after_crash(AfterCrash::Rerun), || now)
}

pub(super) fn max_attempts_ignored(
    record: Record,
    fingerprint: &Fingerprint,
    policy: &ClaimPolicy,
    now: SystemTime,
) -> Decision {
    decide(record, fingerprint, &policy.with_max_attempts(u32::MAX), || now)
}

pub(super) fn rerun_within_ignored(
    record: Record,
    fingerprint: &Fingerprint,
    policy: &ClaimPolicy,
    now: SystemTime,
) -> Decision {
    let forever = policy.with_rerun_within(Duration::from_hours(1));
    decide(record, fingerprint, &forever, || now)
}
