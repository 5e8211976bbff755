//! Clauses 16 to 21: the steps of a record.

use super::*;

fn recording(number: u8, name: &str, step: &'static [u8]) -> Call {
    Call::RecordStep {
        claim: claim(number),
        name: name.to_owned(),
        step: Bytes::from_static(step),
    }
}

/// The claim as the store reports it once it has a step.
fn with_steps(number: u8) -> Claim {
    Claim {
        has_steps: true,
        ..claim(number)
    }
}

fn taking_over(number: u8) -> Call {
    Call::TakeOver {
        lapsed: with_steps(number),
        claim: claim(number + 1),
    }
}

fn steps<const N: usize>(steps: [(&str, &'static [u8]); N]) -> Reply {
    let steps = steps.map(|(name, step)| (name.to_owned(), Bytes::from_static(step)));
    Reply::Steps(Some(steps.into()))
}

fn parked(number: u8) -> Record {
    let claim = with_steps(number);
    Record::Parked { claim }
}

/// A claim at 0 that records step `a` at 50, so that its lease lapses at 250 and it is gone at 550. Then the calls; the last reply.
fn after_a_step(calls: &[(u64, Call)]) -> Reply {
    let mut all = vec![(0, Call::Claim(claim(1))), (50, recording(1, "a", b"1"))];
    all.extend_from_slice(calls);
    last_reply(&all)
}

const SUPERSEDED: Reply = Reply::Fenced(Fenced::Superseded);
const NO_OWNER: Reply = Reply::Steps(None);

#[test]
fn clause_16_a_step_is_written_over_one_of_its_name_and_starts_the_lease_anew() {
    let table = [
        (vec![], steps([("a", b"1")])),
        (vec![recording(1, "a", b"2")], steps([("a", b"2")])),
        (vec![recording(1, "b", b"2")], steps([("a", b"1"), ("b", b"2")])),
        (vec![recording(2, "b", b"2")], steps([("a", b"1")])),
    ];
    for (calls, expected) in table {
        let mut calls: Vec<_> = calls.into_iter().map(|call| (60, call)).collect();
        calls.push((70, Call::ReadSteps(claim(1))));
        assert_eq!(after_a_step(&calls), expected, "{calls:?}");
    }
    for (later, remaining) in [(50, 200), (249, 1), (250, 0), (549, 0)] {
        let expected = Some(claimed(with_steps(1), remaining));
        assert_eq!(
            after_a_step(&[(later, Call::Read)]),
            Reply::Found(expected),
            "after {later} ms"
        );
    }
    // A lapsed claim is still its owner's, as for a renewal.
    let found = after_a_step(&[(400, recording(1, "b", b"2")), (599, Call::Read)]);
    assert_eq!(found, Reply::Found(Some(claimed(with_steps(1), 1))));
    assert_eq!(last_reply(&[(0, recording(1, "a", b"1"))]), SUPERSEDED);
}

#[test]
fn clause_16_the_owner_keeps_its_steps_whatever_it_repeats() {
    let keeping = [Call::Renew(claim(1)), Call::Claim(claim(1)), taking_over(0)];
    for call in keeping {
        // `taking_over(0)` is that of the claim 1, repeated.
        let calls = [(300, call.clone()), (310, Call::ReadSteps(claim(1)))];
        assert_eq!(after_a_step(&calls), steps([("a", b"1")]), "{call:?}");
        let found = after_a_step(&[(300, call.clone()), (310, Call::Read)]);
        let is_with_steps =
            matches!(found, Reply::Found(Some(Record::Claimed { claim, .. })) if claim == with_steps(1));
        assert!(is_with_steps, "{call:?}");
    }
}

#[test]
fn clause_17_reading_steps_changes_nothing() {
    let (state, _) = step(&State::Absent, START, &Call::Claim(claim(1)));
    let (state, _) = step(&state, START, &recording(1, "a", b"1"));
    for (owner, later, expected) in [
        (1, 0, steps([("a", b"1")])),
        (1, 499, steps([("a", b"1")])),
        (2, 0, NO_OWNER),
    ] {
        let read = step(&state, Time(START.0 + later), &Call::ReadSteps(claim(owner)));
        assert_eq!(read, (state.clone(), expected), "{owner} after {later} ms");
    }
    assert_eq!(
        last_reply(&[(0, Call::Claim(claim(1))), (1, Call::ReadSteps(claim(1)))]),
        steps([])
    );
    assert_eq!(last_reply(&[(0, Call::ReadSteps(claim(1)))]), NO_OWNER);
}

#[test]
fn clause_18_a_parked_record_stays_for_its_ttl_and_repeating_it_does_not_prolong_it() {
    let park = |later| (later, Call::Park(claim(1)));
    assert_eq!(after_a_step(&[park(100)]), APPLIED);
    assert_eq!(after_a_step(&[park(100), park(300)]), APPLIED);
    assert_eq!(after_a_step(&[park(100), park(400)]), SUPERSEDED);
    for repeated in [150, 399] {
        let found = |later| after_a_step(&[park(100), park(repeated), (later, Call::Read)]);
        assert_eq!(
            found(399),
            Reply::Found(Some(parked(1))),
            "repeated after {repeated} ms"
        );
        assert_eq!(found(400), Reply::Found(None), "repeated after {repeated} ms");
    }
    // A lapsed claim is parked by its owner all the same.
    assert_eq!(
        after_a_step(&[park(300), (599, Call::Read)]),
        Reply::Found(Some(parked(1)))
    );
    assert_eq!(
        after_a_step(&[(100, Call::Park(claim(2))), (100, Call::Read)]),
        Reply::Found(Some(claimed(with_steps(1), 150)))
    );
}

#[test]
fn clause_18_parking_a_claim_without_steps_releases_it() {
    let calls = [(0, Call::Claim(claim(1))), (10, Call::Park(claim(1)))];
    assert_eq!(last_reply(&calls), APPLIED);
    let [first, second] = calls;
    assert_eq!(
        last_reply(&[first.clone(), second.clone(), (20, Call::Read)]),
        Reply::Found(None)
    );
    assert_eq!(last_reply(&[first, second.clone(), second]), SUPERSEDED);
}

#[test]
fn clause_19_a_takeover_keeps_the_steps_and_a_parked_claim_need_not_lapse() {
    let park = || (100, Call::Park(claim(1)));
    let read = |later| (later, Call::ReadSteps(claim(2)));
    assert_eq!(
        after_a_step(&[(249, taking_over(1))]),
        Reply::Existing(claimed(with_steps(1), 1))
    );
    assert_eq!(after_a_step(&[(250, taking_over(1)), read(260)]), steps([("a", b"1")]));
    assert_eq!(
        after_a_step(&[park(), (100, taking_over(1)), read(260)]),
        steps([("a", b"1")])
    );
    assert_eq!(
        after_a_step(&[park(), (100, taking_over(1)), (110, Call::Read)]),
        Reply::Found(Some(claimed(with_steps(2), 190)))
    );
    // Steps of all attempts add up, however their attempts ended.
    let third = [
        (250, taking_over(1)),
        (260, recording(2, "b", b"2")),
        (270, Call::Park(claim(2))),
        (280, taking_over(2)),
        (290, Call::ReadSteps(claim(3))),
    ];
    assert_eq!(after_a_step(&third), steps([("a", b"1"), ("b", b"2")]));
}

#[test]
fn clause_19_only_exactly_the_claim_that_was_read_is_taken_over() {
    let stale = || Call::TakeOver {
        lapsed: claim(1),
        claim: claim(2),
    };
    // It was read before its first step, so the caller would go on without that step.
    assert_eq!(
        after_a_step(&[(300, stale())]),
        Reply::Existing(claimed(with_steps(1), 0))
    );
    assert_eq!(
        after_a_step(&[(100, Call::Park(claim(1))), (300, stale())]),
        Reply::Existing(parked(1))
    );
    assert_eq!(
        after_a_step(&[
            (100, Call::Park(claim(1))),
            (110, taking_over(1)),
            (
                120,
                Call::TakeOver {
                    lapsed: with_steps(1),
                    claim: claim(3)
                }
            )
        ]),
        Reply::Existing(claimed(with_steps(2), 190))
    );
    // A claim does not replace a parked record.
    assert_eq!(
        after_a_step(&[(100, Call::Park(claim(1))), (110, Call::Claim(claim(2)))]),
        Reply::Existing(parked(1))
    );
}

/// Every call of an owner but its claim.
fn calls_of_owner(number: u8) -> [Call; 5] {
    [
        Call::Renew(claim(number)),
        completion_of(claim(number)),
        Call::Release(claim(number)),
        recording(number, "b", b"2"),
        Call::ReadSteps(claim(number)),
    ]
}

#[test]
fn clause_20_neither_the_attempt_that_has_parked_nor_a_superseded_one_owns_the_record() {
    let parking = [(100, Call::Park(claim(1)))];
    let superseding = [(250, taking_over(1))];
    for before in [&parking, &superseding] {
        for call in calls_of_owner(1) {
            let found = after_a_step(&[before[0].clone(), (260, Call::Read)]);
            let mut calls = vec![before[0].clone(), (260, call.clone())];
            let expected = if matches!(call, Call::ReadSteps(_)) {
                NO_OWNER
            } else {
                SUPERSEDED
            };
            assert_eq!(after_a_step(&calls), expected, "{call:?}");
            calls.push((260, Call::Read));
            assert_eq!(after_a_step(&calls), found, "{call:?} has changed the record");
        }
    }
    let late = [superseding[0].clone(), (260, Call::Park(claim(1)))];
    assert_eq!(after_a_step(&late), SUPERSEDED);
}

#[test]
fn clause_21_a_later_claim_does_not_see_the_steps_of_a_record_that_has_ended() {
    let ends = [
        ("completed", vec![(100, completion_of(claim(1)))], 400),
        ("released", vec![(100, Call::Release(claim(1)))], 100),
        ("expired", vec![], 550),
        ("parked and expired", vec![(100, Call::Park(claim(1)))], 400),
    ];
    for (how, ending, gone) in ends {
        for claiming in [Call::Claim(claim(2)), taking_over(1)] {
            let mut calls = ending.clone();
            calls.push((gone, claiming.clone()));
            assert_eq!(after_a_step(&calls), Reply::Acquired, "{how}: {claiming:?}");
            calls.push((gone, Call::Read));
            let fresh = Reply::Found(Some(claimed(claim(2), 200)));
            assert_eq!(after_a_step(&calls), fresh, "{how}: {claiming:?}");
            calls.push((gone, Call::ReadSteps(claim(2))));
            assert_eq!(after_a_step(&calls), steps([]), "{how}: {claiming:?}");
        }
    }
}
