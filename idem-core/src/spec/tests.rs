mod steps;

use std::time::SystemTime;

use super::*;
use crate::{ClaimPolicy, Fingerprint};

const LEASE: Duration = Duration::from_millis(200);
const TTL: Duration = Duration::from_millis(300);
const START: Time = Time(1_000);

fn claim(number: u8) -> Claim {
    Claim {
        token: Token::from_bytes([number; Token::LEN]),
        began_at: SystemTime::UNIX_EPOCH,
        ..Claim::first(Fingerprint::NONE, &ClaimPolicy::new(TTL).with_lease(LEASE))
    }
}

fn completion_of(claim: Claim) -> Call {
    Call::Complete {
        claim,
        completion: Completion::NotStored,
        ttl: TTL,
    }
}

/// Performs calls at their times, after `START`; the last reply.
fn last_reply(calls: &[(u64, Call)]) -> Reply {
    let mut state = State::Absent;
    let mut last = Reply::Found(None);
    for (later, call) in calls {
        (state, last) = step(&state, Time(START.0 + later), call);
    }
    last
}

fn claimed(claim: Claim, remaining: u64) -> Record {
    let remaining = Duration::from_millis(remaining);
    Record::Claimed { claim, remaining }
}

#[test]
fn a_lease_and_a_record_end_at_their_millisecond() {
    let first = || (0, Call::Claim(claim(1)));
    let table = [
        (199, Some(claimed(claim(1), 1))),
        (200, Some(claimed(claim(1), 0))),
        (499, Some(claimed(claim(1), 0))),
        (500, None),
    ];
    for (later, expected) in table {
        let found = last_reply(&[first(), (later, Call::Read)]);
        assert_eq!(found, Reply::Found(expected), "after {later} ms");
    }
}

#[test]
fn a_repeated_claim_is_acquired_again_and_its_lease_runs_on() {
    let repeated = || (150, Call::Claim(claim(1)));
    assert_eq!(last_reply(&[(0, Call::Claim(claim(1))), repeated()]), Reply::Acquired);
    let found = last_reply(&[(0, Call::Claim(claim(1))), repeated(), (160, Call::Read)]);
    assert_eq!(found, Reply::Found(Some(claimed(claim(1), 40))));
}

#[test]
fn only_exactly_the_lapsed_claim_is_taken_over() {
    let take_over = |lapsed: Claim| Call::TakeOver {
        lapsed,
        claim: claim(2),
    };
    let other_attempt = Claim { attempt: 7, ..claim(1) };
    let table = [
        (199, claim(1), Reply::Existing(claimed(claim(1), 1))),
        (200, claim(1), Reply::Acquired),
        (200, claim(3), Reply::Existing(claimed(claim(1), 0))),
        (200, other_attempt, Reply::Existing(claimed(claim(1), 0))),
        (500, claim(3), Reply::Acquired),
    ];
    for (later, lapsed, expected) in table {
        let reply = last_reply(&[(0, Call::Claim(claim(1))), (later, take_over(lapsed.clone()))]);
        assert_eq!(reply, expected, "{lapsed:?} after {later} ms");
    }
}

#[test]
fn a_completion_stays_for_its_own_ttl_and_repeating_it_does_not_prolong_it() {
    let first = || (0, Call::Claim(claim(1)));
    let completed = || (100, completion_of(claim(1)));
    let repeated = (300, completion_of(claim(1)));
    assert_eq!(
        last_reply(&[first(), completed(), repeated.clone()]),
        Reply::Fenced(Fenced::Applied)
    );
    let record = Record::Completed {
        fingerprint: Fingerprint::NONE,
        completion: Completion::NotStored,
    };
    let found = |later| last_reply(&[first(), completed(), repeated.clone(), (later, Call::Read)]);
    assert_eq!(found(399), Reply::Found(Some(record)));
    assert_eq!(found(400), Reply::Found(None));
}

#[test]
fn only_the_owner_of_the_claim_in_place_renews_completes_and_releases() {
    let calls = |number| {
        [
            Call::Renew(claim(number)),
            completion_of(claim(number)),
            Call::Release(claim(number)),
        ]
    };
    for call in calls(1) {
        let reply = last_reply(&[(0, Call::Claim(claim(1))), (250, call.clone())]);
        assert_eq!(reply, Reply::Fenced(Fenced::Applied), "{call:?}");
    }
    let (held, _) = step(&State::Absent, START, &Call::Claim(claim(1)));
    for call in calls(2) {
        let (state, reply) = step(&held, START, &call);
        assert_eq!((&state, reply), (&held, Reply::Fenced(Fenced::Superseded)), "{call:?}");
    }
    for call in [Call::Renew(claim(1)), Call::Release(claim(1))] {
        let reply = last_reply(&[
            (0, Call::Claim(claim(1))),
            (0, completion_of(claim(1))),
            (0, call.clone()),
        ]);
        assert_eq!(reply, Reply::Fenced(Fenced::Superseded), "{call:?}");
    }
}
