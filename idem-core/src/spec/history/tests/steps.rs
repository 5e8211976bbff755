//! Histories of durable steps, explained and unexplained.

use bytes::Bytes;

use super::*;

/// The claim with this name, as the store reports it once it has a step.
fn stepped(name: u8) -> Claim {
    Claim {
        has_steps: true,
        ..claim(name)
    }
}

fn recording(name: u8, step: &str, value: &'static [u8]) -> Call {
    Call::RecordStep {
        claim: stepped(name),
        name: step.to_owned(),
        step: Bytes::from_static(value),
    }
}

fn reading(name: u8) -> Call {
    Call::ReadSteps(stepped(name))
}

fn parking(name: u8) -> Call {
    Call::Park(stepped(name))
}

fn continuing(parked: u8, name: u8) -> Call {
    Call::TakeOver {
        lapsed: stepped(parked),
        claim: stepped(name),
    }
}

fn steps<const N: usize>(steps: [(&str, &'static [u8]); N]) -> Reply {
    let steps = steps.map(|(name, step)| (name.to_owned(), Bytes::from_static(step)));
    Reply::Steps(Some(steps.into()))
}

fn parked(name: u8) -> Reply {
    let claim = stepped(name);
    Reply::Existing(Record::Parked { claim })
}

/// A claim with one step, and then these lines.
fn after_a_step(lines: &[Line]) -> Vec<Line> {
    let mut all = vec![
        answered(0, 1, claiming(1), Reply::Acquired),
        answered(5, 6, recording(1, "a", b"1"), APPLIED),
    ];
    all.extend_from_slice(lines);
    all
}

#[test]
fn steps_of_a_store_that_keeps_its_contract_are_explained() {
    let attempts = [
        answered(10, 11, parking(1), APPLIED),
        answered(20, 21, claiming(2), parked(1)),
        answered(22, 23, continuing(1, 2), Reply::Acquired),
        answered(24, 25, reading(2), steps([("a", b"1")])),
        answered(26, 27, recording(1, "b", b"2"), SUPERSEDED),
        answered(28, 29, recording(2, "b", b"3"), APPLIED),
        answered(30, 31, reading(2), steps([("a", b"1"), ("b", b"3")])),
        answered(32, 33, completing(2), APPLIED),
        answered(34, 35, reading(2), Reply::Steps(None)),
    ];
    assert_explained("an attempt goes on after a parked one", &after_a_step(&attempts));
    let late = [
        open(8, recording(1, "b", b"2")),
        answered(10, 11, reading(1), steps([("a", b"1")])),
        answered(20, 21, reading(1), steps([("a", b"1"), ("b", b"2")])),
    ];
    assert_explained("an open step took effect between two readings", &after_a_step(&late));
    let renewed = [
        answered(90, 91, recording(1, "a", b"2"), APPLIED),
        answered(150, 151, claiming(2), held_with_steps(1, 39)),
    ];
    assert_explained("a step starts the lease anew", &after_a_step(&renewed));
}

fn held_with_steps(name: u8, remaining: u64) -> Reply {
    Reply::Existing(Record::Claimed {
        claim: stepped(name),
        remaining: millis(remaining),
    })
}

#[test]
fn a_step_that_was_lost_or_never_recorded() {
    let lost = [answered(10, 11, reading(1), steps([]))];
    assert_unexplained("lost", 3, &after_a_step(&lost));
    let changed = [answered(10, 11, reading(1), steps([("a", b"2")]))];
    assert_unexplained("another result", 3, &after_a_step(&changed));
    let after_takeover = [
        answered(150, 151, continuing(1, 2), Reply::Acquired),
        answered(160, 161, reading(2), steps([])),
    ];
    assert_unexplained("lost by a takeover", 4, &after_a_step(&after_takeover));
}

#[test]
fn a_superseded_attempt_that_records_or_parks_something() {
    for call in [recording(1, "b", b"2"), parking(1)] {
        let superseded = [
            answered(150, 151, continuing(1, 2), Reply::Acquired),
            answered(160, 161, call.clone(), APPLIED),
        ];
        assert_unexplained(&format!("{call:?}"), 4, &after_a_step(&superseded));
    }
    let denied = [
        answered(150, 151, continuing(1, 2), Reply::Acquired),
        answered(160, 161, recording(1, "b", b"2"), SUPERSEDED),
        answered(170, 171, reading(2), steps([("a", b"1"), ("b", b"2")])),
    ];
    // The refused call goes: a step that nobody has recorded is as impossible without it.
    assert_unexplained("the reply says that it did not", 4, &after_a_step(&denied));
}

#[test]
fn a_parked_record_that_is_gone_or_has_an_owner() {
    let released = [
        answered(10, 11, parking(1), APPLIED),
        answered(20, 21, claiming(2), Reply::Acquired),
    ];
    assert_unexplained("gone before its ttl", 4, &after_a_step(&released));
    let owned = [
        answered(10, 11, parking(1), APPLIED),
        answered(20, 21, renewing(1), APPLIED),
    ];
    assert_unexplained("renewed", 4, &after_a_step(&owned));
    let prolonged = [
        answered(10, 11, parking(1), APPLIED),
        answered(200, 201, parking(1), APPLIED),
        answered(350, 351, claiming(2), parked(1)),
    ];
    assert_unexplained("prolonged by repeating it", 5, &after_a_step(&prolonged));
}

#[test]
fn an_open_step_is_shown_if_a_reply_shows_what_it_has_written() {
    let lines = [
        open(8, recording(1, "b", b"2")),
        answered(10, 11, reading(1), steps([("a", b"1"), ("b", b"2")])),
        answered(20, 21, reading(1), steps([("a", b"1")])),
    ];
    assert_unexplained("written, and gone", 5, &after_a_step(&lines));
}
