//! How often a request allocates memory. Where each of ours comes from is in `docs/performance.md`.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use idem_bench::within::{Callee, Kind, Within};

/// Over so many, for the maps and trees of the memory backend allocate now and then.
const REQUESTS: u32 = 2_000;

/// Of a request to the annotated handler, beyond those of the same request to the handler alone.
fn beyond_bare(kind: Kind) -> f64 {
    let each = |callee| {
        let mut within = Within::warm(callee, kind);
        let requests = within.requests(REQUESTS);
        let counted = allocation_counter::measure(|| within.send(requests)).count_total;
        f64::from(u32::try_from(counted).expect("fewer")) / f64::from(REQUESTS)
    };
    each(Callee::Memory) - each(Callee::Bare)
}

/// With the features `metrics` and `postgres`, which this package turns on.
#[test]
fn a_first_request_allocates_no_more_often_than_it_did() {
    let count = beyond_bare(Kind::First);
    assert!(
        (18.0..27.0).contains(&count),
        "{count}; if it is fewer, say so here and in docs/performance.md"
    );
}

#[test]
fn a_replay_allocates_no_more_often_than_it_did() {
    let count = beyond_bare(Kind::Replay);
    assert!(
        (10.0..18.5).contains(&count),
        "{count}; if it is fewer, say so here and in docs/performance.md"
    );
}
