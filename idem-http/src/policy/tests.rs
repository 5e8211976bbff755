//! Which statuses are stored, what beats what, and what is out of bounds.

use http::StatusCode;

use super::*;

#[test]
fn every_status_is_stored_or_released_by_the_word_for_it() {
    let stored = |stored: StoredAnswers| {
        let statuses = (100..=999).filter_map(|status| StatusCode::from_u16(status).ok());
        let stored = statuses.filter(move |status| stored.include(*status));
        stored.map(|status| status.as_u16()).collect::<Vec<_>>()
    };
    assert_eq!(stored(StoredAnswers::All), (100..=999).collect::<Vec<_>>());
    assert_eq!(stored(StoredAnswers::Success), (200..400).collect::<Vec<_>>());
    let released = [408, 425, 429];
    let is_final = |status: &u16| !released.contains(status) && !(500..600).contains(status);
    assert_eq!(
        stored(StoredAnswers::Final),
        (100..=999).filter(is_final).collect::<Vec<_>>()
    );
}

#[test]
fn what_is_set_beats_the_default_which_beats_what_is_built_in() {
    let ttl = Duration::from_mins(1);
    let defaults = Policy::new()
        .with_header("x-default")
        .with_required(false)
        .with_in_flight(InFlight::Wait)
        .with_store(StoredAnswers::All)
        .with_fingerprint(Compared::Nothing)
        .with_on_outage(OnOutage::Run)
        .with_max_response(7)
        .with_after_crash(AfterCrash::Refuse)
        .with_rerun_within(Duration::from_hours(1))
        .with_max_attempts(2)
        .with_max_run(Duration::from_secs(20))
        .with_lease(Duration::from_secs(5))
        .with_wait(Duration::from_secs(2));
    let set = Policy::new()
        .with_header("x-set")
        .with_required(true)
        .with_in_flight(InFlight::Reject)
        .with_store(StoredAnswers::Success)
        .with_fingerprint(Compared::Request)
        .with_on_outage(OnOutage::Refuse)
        .with_max_response(9)
        .with_after_crash(AfterCrash::Rerun)
        .with_rerun_within(Duration::from_hours(2))
        .with_max_attempts(3)
        .with_max_run(Duration::from_secs(30))
        .with_lease(Duration::from_secs(6))
        .with_wait(Duration::from_secs(3));
    assert_eq!(set.or(defaults), set);
    assert_eq!(Policy::new().or(defaults), defaults);
    assert_eq!(Policy::new().durations(ttl), idem_core::ClaimPolicy::new(ttl));
    assert_eq!(Policy::new().header(), "idempotency-key");
    let bounds = set.or(defaults).durations(ttl);
    assert_eq!(bounds.rerun_within(), Some(Duration::from_hours(2)));
    assert_eq!(bounds.max_attempts(), Some(3));
    assert_eq!(bounds.max_run(), Some(Duration::from_secs(30)));
    let waiting = Policy::new().with_in_flight(InFlight::Wait);
    assert_eq!(waiting.or(defaults).durations(ttl).wait(), Some(Duration::from_secs(2)));
    assert_eq!(waiting.durations(ttl).wait(), Some(Policy::DEFAULT_WAIT));
    // Of no meaning where nobody waits.
    assert_eq!(set.or(defaults).durations(ttl).wait(), None);
}

#[test]
fn a_value_out_of_bounds_is_refused_when_it_is_set() {
    type Setting = (&'static str, fn() -> Policy);
    let refused: [Setting; 12] = [
        ("lease", || Policy::new().with_lease(Duration::from_millis(99))),
        ("lease", || {
            Policy::new().with_lease(Duration::from_hours(24) + Duration::from_millis(1))
        }),
        ("wait", || Policy::new().with_wait(Duration::ZERO)),
        ("wait", || {
            Policy::new().with_wait(Policy::LONGEST_WAIT + Duration::from_millis(1))
        }),
        ("rerun_within", || Policy::new().with_rerun_within(Duration::ZERO)),
        ("max_attempts", || Policy::new().with_max_attempts(0)),
        ("max_run", || Policy::new().with_max_run(Duration::ZERO)),
        ("max_response", || Policy::new().with_max_response(0)),
        ("max_response", || {
            Policy::new().with_max_response(Policy::LARGEST_MAX_RESPONSE + 1)
        }),
        ("header", || Policy::new().with_header("")),
        ("header", || Policy::new().with_header("a b")),
        ("header", || Policy::new().with_header("schlüssel")),
    ];
    for (option, set) in refused {
        let panic = std::panic::catch_unwind(set).expect_err(option);
        let message = panic.downcast_ref::<&str>().copied().expect("a message");
        assert!(message.contains(option), "{option}: {message}");
    }
}
