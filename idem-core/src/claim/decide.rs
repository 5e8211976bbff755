//! The decision over an existing record, as a pure function.

use std::time::Duration;

use bytes::Bytes;

use super::{Claim, Completion, Record};
use crate::{AfterCrash, Fingerprint};

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
    /// The lease of the claim lapsed, and the policy forbids another attempt (IDEM-7).
    OutcomeUnknown,
}

/// Decides what a request with `fingerprint` gets if `record` is under its key.
///
/// A mismatch is checked first, because that answer must not depend on how far the other request has come.
#[must_use]
pub fn decide(record: Record, fingerprint: &Fingerprint, after_crash: AfterCrash) -> Decision {
    let stored = match &record {
        Record::Claimed { claim, .. } => &claim.fingerprint,
        Record::Completed { fingerprint, .. } => fingerprint,
    };
    if stored.differs_from(fingerprint) {
        return Decision::Mismatch;
    }
    match record {
        Record::Completed { completion, .. } => match completion {
            Completion::Stored(payload) => Decision::Replay(payload),
            Completion::NotStored => Decision::NotStored,
        },
        Record::Claimed { claim, remaining } if remaining.is_zero() => match after_crash {
            AfterCrash::Rerun => Decision::TakeOver(claim),
            AfterCrash::Refuse => Decision::OutcomeUnknown,
        },
        Record::Claimed { remaining, .. } => Decision::InFlight(remaining),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClaimPolicy, Token};

    const MINE: Fingerprint = Fingerprint::new(1, [7; 32]);
    const OTHER: Fingerprint = Fingerprint::new(1, [8; 32]);
    const OTHER_SCHEME: Fingerprint = Fingerprint::new(2, [8; 32]);

    fn claim(fingerprint: Fingerprint) -> Claim {
        Claim {
            token: Token::from_bytes([9; 16]),
            ..Claim::first(fingerprint, &ClaimPolicy::new(Duration::from_mins(1)))
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
            (done(MINE, stored()), replay()),
            (done(OTHER, stored()), Decision::Mismatch),
            (done(Fingerprint::NONE, stored()), replay()),
            (done(OTHER_SCHEME, stored()), replay()),
            (done(MINE, Completion::NotStored), Decision::NotStored),
            (done(OTHER, Completion::NotStored), Decision::Mismatch),
            (done(Fingerprint::NONE, Completion::NotStored), Decision::NotStored),
            (done(OTHER_SCHEME, Completion::NotStored), Decision::NotStored),
        ];
        for (record, expected) in table {
            assert_eq!(decide(record.clone(), &MINE, AfterCrash::Rerun), expected, "{record:?}");
            let refused = match expected {
                Decision::TakeOver(_) => Decision::OutcomeUnknown,
                expected => expected,
            };
            assert_eq!(decide(record.clone(), &MINE, AfterCrash::Refuse), refused, "{record:?}");
        }
    }

    #[test]
    fn a_request_that_is_not_compared_never_mismatches() {
        for record in [held(OTHER), lapsed(OTHER), done(OTHER, Completion::NotStored)] {
            assert_ne!(
                decide(record, &Fingerprint::NONE, AfterCrash::Rerun),
                Decision::Mismatch
            );
        }
    }
}
