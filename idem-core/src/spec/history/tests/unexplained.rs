//! Histories of stores that break their contract, each with the number of calls that are shown.

use super::*;

#[test]
fn two_winners_of_one_claim() {
    assert_unexplained(
        "both claims were acquired",
        2,
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            answered(2, 3, claiming(3), held(1, 97)),
            answered(10, 11, claiming(2), Reply::Acquired),
            answered(12, 13, claiming(4), held(2, 97)),
        ],
    );
    assert_unexplained(
        "both takeovers were acquired",
        3,
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            answered(150, 160, taking_over(1, 2), Reply::Acquired),
            answered(150, 160, taking_over(1, 3), Reply::Acquired),
        ],
    );
}

#[test]
fn a_completion_that_was_lost() {
    assert_unexplained(
        "the claim is there again",
        3,
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            answered(10, 11, completing(1), APPLIED),
            answered(15, 16, claiming(3), completed(1)),
            answered(20, 21, claiming(2), held(1, 79)),
        ],
    );
    assert_unexplained(
        "nothing is there",
        3,
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            answered(10, 11, completing(1), APPLIED),
            answered(20, 21, claiming(2), Reply::Acquired),
        ],
    );
    assert_unexplained(
        "another answer is there",
        3,
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            answered(10, 11, completing(1), APPLIED),
            answered(20, 21, claiming(2), completed(2)),
        ],
    );
}

#[test]
fn a_superseded_owner_that_changes_something() {
    let superseded = [
        answered(0, 1, claiming(1), Reply::Acquired),
        answered(150, 151, taking_over(1, 2), Reply::Acquired),
    ];
    for call in [completing(1), renewing(1), releasing(1)] {
        let mut lines = superseded.to_vec();
        lines.push(answered(160, 161, call.clone(), APPLIED));
        assert_unexplained(&format!("{call:?}"), 3, &lines);
    }
    let mut lines = superseded.to_vec();
    lines.push(answered(160, 161, completing(1), SUPERSEDED));
    lines.push(answered(170, 171, claiming(3), completed(1)));
    assert_unexplained("the reply says that it did not", 4, &lines);
}

#[test]
fn an_owner_that_is_superseded_by_nobody() {
    assert_unexplained(
        "its claim is in place",
        2,
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            answered(10, 11, renewing(1), SUPERSEDED),
        ],
    );
}

#[test]
fn a_lease_that_lapses_too_early_or_too_late() {
    assert_unexplained(
        "taken over while it holds",
        2,
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            answered(60, 61, taking_over(1, 2), Reply::Acquired),
        ],
    );
    assert_unexplained(
        "reported as lapsed",
        2,
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            answered(60, 61, claiming(2), lapsed(1)),
        ],
    );
    assert_unexplained(
        "reported as held for longer than it is",
        2,
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            answered(60, 61, claiming(2), held(1, 90)),
        ],
    );
    assert_unexplained(
        "held for longer than its lease",
        2,
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            answered(150, 151, claiming(2), held(1, 1)),
        ],
    );
    assert_unexplained(
        "prolonged by a claim that was repeated",
        3,
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            answered(50, 51, claiming(1), Reply::Acquired),
            answered(130, 131, claiming(2), held(1, 1)),
        ],
    );
}

#[test]
fn two_reports_that_contradict_each_other() {
    assert_unexplained(
        "held for longer after some time",
        3,
        &[
            answered(0, 90, claiming(1), Reply::Acquired),
            answered(110, 111, claiming(2), lapsed(1)),
            answered(140, 141, claiming(2), held(1, 40)),
        ],
    );
}

#[test]
fn a_record_that_expires_too_early_or_too_late() {
    let done = [
        answered(0, 1, claiming(1), Reply::Acquired),
        answered(50, 51, completing(1), APPLIED),
    ];
    let mut early = done.to_vec();
    early.push(answered(300, 301, claiming(2), Reply::Acquired));
    assert_unexplained("too early", 3, &early);
    let mut late = done.to_vec();
    late.push(answered(400, 401, claiming(2), completed(1)));
    assert_unexplained("too late", 3, &late);
    assert_unexplained(
        "a lapsed claim is gone before its ttl",
        2,
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            answered(350, 351, claiming(2), Reply::Acquired),
        ],
    );
}

#[test]
fn a_record_that_one_call_finds_expired_and_a_call_before_it_does_not_find() {
    assert_unexplained(
        "gone before it can have expired",
        3,
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            answered(10, 600, renewing(1), SUPERSEDED),
            answered(20, 21, claiming(2), Reply::Acquired),
        ],
    );
    assert_unexplained(
        "an open call does not let it expire",
        2,
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            open(10, releasing(2)),
            answered(20, 21, claiming(3), Reply::Acquired),
        ],
    );
}

#[test]
fn a_record_that_was_never_written() {
    assert_unexplained("a claim", 1, &[answered(0, 1, claiming(1), held(2, 50))]);
    assert_unexplained(
        "an answer",
        2,
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            answered(10, 11, claiming(2), completed(1)),
        ],
    );
    assert_unexplained(
        "a claim whose call had not begun",
        1,
        &[
            answered(0, 1, claiming(1), held(2, 50)),
            answered(10, 11, claiming(2), Reply::Acquired),
        ],
    );
}

#[test]
fn an_open_call_that_takes_effect_twice() {
    assert_unexplained(
        "released, and there again",
        5,
        &[
            open(0, claiming(1)),
            answered(10, 11, claiming(2), held(1, 95)),
            answered(20, 21, releasing(1), APPLIED),
            answered(30, 31, claiming(3), Reply::Acquired),
            answered(40, 41, releasing(3), APPLIED),
            answered(50, 51, claiming(4), held(1, 60)),
        ],
    );
}

#[test]
fn a_history_is_printed_with_its_times_and_the_names_of_its_claims() {
    let report = check(events(&[
        answered(5, 6, claiming(1), Reply::Acquired),
        answered(7, 8, claiming(3), held(1, 98)),
        open(9, completing(1)),
        answered(10, 12, claiming(2), Reply::Acquired),
    ]));
    let shown = report.unexplained[0].to_string();
    assert_eq!(
        shown,
        "no order of these calls on key explains their replies:\n       \
         0.0 ..       1.0  process 1: claim A (attempt 1, lease 100ms, ttl 300ms): acquired\n       \
         4.0 ..            process 3: complete A with payload 01 for 300ms: no reply\n       \
         5.0 ..       7.0  process 4: claim B (attempt 1, lease 100ms, ttl 300ms): acquired\n  \
         A is Token(01010101010101010101010101010101)\n  \
         B is Token(02020202020202020202020202020202)\n"
    );
}
