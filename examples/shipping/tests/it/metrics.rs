//! What Prometheus is told of requests whose outcomes are known.

use std::collections::BTreeMap;

use crate::mix::{self, counted};

fn counts(outcomes: &[(&str, f64)]) -> BTreeMap<String, f64> {
    outcomes
        .iter()
        .map(|(outcome, count)| ((*outcome).to_owned(), *count))
        .collect()
}

/// `in_flight` is not among them: a duplicate of an order gets it after 45 seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_outcome_of_a_known_mix_is_counted_exactly() {
    let counted = counted().await;

    let with_redis = counts(&[
        ("abandoned", 1.0),
        ("executed", 2.0),
        ("key_invalid", 2.0),
        ("key_missing", 1.0),
        ("mismatch", 2.0),
        ("released", 2.0),
        ("replayed", 4.0),
        ("waited", 1.0),
    ]);
    assert_eq!(mix::outcomes_of(&counted.with_redis), with_redis);
    let mut without_redis = with_redis;
    without_redis.extend(counts(&[("backend_unavailable", 2.0), ("not_recorded", 1.0)]));
    assert_eq!(mix::outcomes_of(&counted.without_redis), without_redis);
    let operations = counted.without_redis.by("idem_requests_total", "operation");
    assert_eq!(
        operations,
        counts(&[("POST /shipping/order", without_redis.values().sum())])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_and_waiters_are_counted_while_they_last() {
    let counted = counted().await;

    let gauges = ["idem_handlers_in_flight", "idem_waiters"];
    assert_eq!(gauges.map(|gauge| counted.meanwhile.value(gauge, &[])), [Some(1.0); 2]);
    assert_eq!(gauges.map(|gauge| counted.with_redis.value(gauge, &[])), [Some(0.0); 2]);
    // Its order is recorded nowhere yet.
    assert_eq!(
        gauges.map(|gauge| counted.without_redis.value(gauge, &[])),
        [Some(1.0), Some(0.0)]
    );
    assert_eq!(
        counted.with_redis.value("idem_wait_duration_seconds_count", &[]),
        Some(2.0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backends_calls_errors_and_records_are_counted() {
    let counted = counted().await;

    let calls = |call| {
        counted
            .with_redis
            .value("idem_backend_duration_seconds_count", &[("call", call)])
    };
    assert_eq!(
        ["check", "complete", "release"].map(calls),
        [Some(1.0), Some(2.0), Some(2.0)]
    );
    assert_eq!(counted.with_redis.value("idem_record_bytes_count", &[]), Some(2.0));
    assert_eq!(counted.with_redis.by("idem_backend_errors_total", "call"), counts(&[]));
    let errors = counted.without_redis.by("idem_backend_errors_total", "call");
    assert_eq!(errors.get("claim"), Some(&2.0));
    assert!(errors.get("complete") >= Some(&1.0), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_lease_and_the_run_in_its_place_are_counted_where_they_happened() {
    let counted = counted().await;

    assert_eq!(mix::outcomes_of(&counted.overtaken), counts(&[("superseded", 1.0)]));
    let renewals = counted.overtaken.by("idem_lease_renewals_total", "result");
    assert_eq!(renewals, counts(&[("failed", 0.0), ("lost", 1.0), ("renewed", 0.0)]));
    assert_eq!(mix::outcomes_of(&counted.overtaking), counts(&[("took_over", 1.0)]));
    let takeovers = [&counted.overtaken, &counted.overtaking].map(|page| page.value("idem_takeovers_total", &[]));
    assert_eq!(takeovers, [Some(0.0), Some(1.0)]);
}
