//! Histories of a store that keeps its contract.

use super::*;

#[test]
fn a_reply_may_be_that_of_any_moment_of_its_call() {
    assert_explained(
        "the later claim won, because it arrived first",
        &[
            answered(0, 50, claiming(1), held(2, 90)),
            answered(10, 40, claiming(2), Reply::Acquired),
        ],
    );
    assert_explained(
        "a completion between the beginning and the return of a claim",
        &[
            answered(0, 5, claiming(1), Reply::Acquired),
            answered(10, 60, claiming(2), completed(1)),
            answered(20, 50, claiming(3), held(1, 60)),
            answered(25, 70, completing(1), APPLIED),
        ],
    );
}

#[test]
fn an_open_call_took_effect_later_or_never() {
    assert_explained(
        "an open completion took effect later",
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            open(2, completing(1)),
            answered(10, 11, claiming(2), held(1, 90)),
            answered(20, 21, claiming(2), completed(1)),
        ],
    );
    assert_explained(
        "an open completion never took effect",
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            open(2, completing(1)),
            answered(150, 151, taking_over(1, 2), Reply::Acquired),
            answered(160, 161, completing(2), APPLIED),
        ],
    );
    assert_explained(
        "a claim whose reply was lost is repeated by its token",
        &[
            open(0, claiming(1)),
            answered(20, 21, claiming(2), held(1, 85)),
            answered(50, 51, claiming(1), Reply::Acquired),
            answered(150, 151, claiming(2), lapsed(1)),
        ],
    );
    assert_explained(
        "an open claim wins after the release of another",
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            open(5, claiming(2)),
            answered(10, 11, releasing(1), APPLIED),
            answered(90, 91, claiming(3), held(2, 40)),
        ],
    );
}

#[test]
fn leases_lapse_and_records_expire_by_the_moment_at_which_they_were_written() {
    assert_explained(
        "the claim took effect late in its call",
        &[
            answered(0, 90, claiming(1), Reply::Acquired),
            answered(180, 181, claiming(2), held(1, 5)),
            answered(195, 196, claiming(2), lapsed(1)),
            answered(480, 481, claiming(2), lapsed(1)),
            answered(495, 496, claiming(2), Reply::Acquired),
        ],
    );
    assert_explained(
        "a renewal starts the lease anew",
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            answered(150, 151, renewing(1), APPLIED),
            answered(240, 241, taking_over(1, 2), held(1, 9)),
            answered(260, 261, taking_over(1, 2), Reply::Acquired),
            answered(262, 263, renewing(1), SUPERSEDED),
        ],
    );
    assert_explained(
        "an outcome expires after its ttl, and repeating it does not prolong it",
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            answered(50, 51, completing(1), APPLIED),
            answered(300, 301, completing(1), APPLIED),
            answered(340, 341, claiming(2), completed(1)),
            answered(360, 361, claiming(2), Reply::Acquired),
            answered(362, 363, completing(1), SUPERSEDED),
        ],
    );
}

#[test]
fn a_refused_takeover_may_find_the_lease_lapsed_when_it_reads_the_record() {
    assert_explained(
        "the lease lapsed between the refusal and the reading",
        &[
            answered(0, 1, claiming(1), Reply::Acquired),
            answered(80, 160, taking_over(1, 2), lapsed(1)),
            answered(170, 171, claiming(3), lapsed(1)),
        ],
    );
}

#[test]
fn a_store_that_was_made_to_lose_its_records_may_have_lost_them() {
    let claimed = answered(0, 1, claiming(1), Reply::Acquired);
    let done = answered(10, 11, completing(1), APPLIED);
    let lost = |goes_back| Event::Lost {
        from: millis(20),
        to: millis(30),
        goes_back,
    };
    let gone = answered(40, 41, claiming(2), Reply::Acquired);
    let unharmed = answered(40, 41, claiming(2), completed(1));
    let back = answered(40, 41, claiming(2), held(1, 60));
    for (last, goes_back, is_explained) in [
        (&gone, false, true),
        (&unharmed, false, true),
        (&back, false, false),
        (&gone, true, true),
        (&unharmed, true, true),
        (&back, true, true),
    ] {
        let mut events = events(&[claimed.clone(), done.clone(), last.clone()]);
        events.push(lost(goes_back));
        let report = check(events);
        assert_eq!(report.unexplained.is_empty(), is_explained, "{last:?}: {report}");
    }
    let early = answered(15, 16, claiming(2), Reply::Acquired);
    let mut events = events(&[claimed, done, early]);
    events.push(lost(true));
    assert_eq!(check(events).unexplained.len(), 1, "it was lost before the loss");
}

#[test]
fn a_call_that_certainly_changed_nothing_is_no_part_of_the_history() {
    let mut events = events(&[open(0, claiming(1)), answered(10, 11, claiming(2), Reply::Acquired)]);
    let id = CallId { process: 1, number: 0 };
    events.push(Event::Returned {
        id,
        at: millis(5),
        reply: None,
    });
    let report = check(events);
    assert_eq!((report.calls, report.open), (1, 0), "{report}");
}

#[test]
fn a_history_that_is_too_wide_is_counted_as_unchecked() {
    // Any of the renewals may have been the last one when the impossible read began.
    let mut lines = vec![answered(0, 1, claiming(1), Reply::Acquired)];
    lines.extend((0..24).map(|late| answered(10 + late, 80 + late, renewing(1), APPLIED)));
    lines.push(answered(200, 201, claiming(2), completed(3)));
    let report = check(events(&lines));
    assert_eq!((report.unchecked, report.unexplained.len()), (1, 0), "{report}");
}
