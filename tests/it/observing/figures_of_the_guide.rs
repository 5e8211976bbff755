//! The guide `observing` counts the outcomes that the code says.

use std::collections::BTreeSet;

use idem_http::RequestOutcome;
use idem_http::observe::answer_of_idem;

const PAGE: &str = include_str!("../../../idem-axum/src/guide/observing.md");

/// The outcomes that the query of a row selects.
fn selected(question: &str) -> BTreeSet<&'static str> {
    let row = PAGE
        .lines()
        .find(|line| line.contains(question))
        .expect("the page has it");
    let list = row.split_once("outcome=~\"").expect("it selects outcomes").1;
    list.split_once('"').expect("its end").0.split("\\|").collect()
}

/// A duplicate does not wait where a service only observes, so no request is counted as one that has waited.
fn answered_by_idem() -> impl Iterator<Item = RequestOutcome> {
    let outcomes = RequestOutcome::ALL.iter().copied();
    outcomes.filter(|outcome| answer_of_idem(*outcome).is_some() && *outcome != RequestOutcome::Waited)
}

#[test]
fn another_answer_is_each_that_idem_would_give() {
    let names: BTreeSet<_> = answered_by_idem().map(RequestOutcome::name).collect();
    assert_eq!(selected("would get another answer than today"), names);
}

#[test]
fn a_second_run_is_each_whose_earlier_attempt_idem_knows() {
    let has_record = |outcome: &RequestOutcome| {
        matches!(
            outcome,
            RequestOutcome::Replayed
                | RequestOutcome::InFlight
                | RequestOutcome::Accepted
                | RequestOutcome::OutcomeUnknown
                | RequestOutcome::ResponseNotStored
        )
    };
    let names: BTreeSet<_> = answered_by_idem()
        .filter(has_record)
        .map(RequestOutcome::name)
        .collect();
    assert_eq!(selected("ran a second time"), names);
}
