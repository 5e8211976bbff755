//! How often a request allocates memory. Where each of ours comes from is in `docs/performance.md`.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use idem_bench::within::{Callee, Kind, Within};

/// A first request, and a replay, with the default features of `idem-axum`.
const FIRST: f64 = 19.2;
const REPLAY: f64 = 12.0;

/// The same with its features `metrics` and `postgres`, as where the whole workspace is built.
const FIRST_WITH_POSTGRES: f64 = 26.2;
const REPLAY_WITH_POSTGRES: f64 = 18.0;

/// What a count may differ by: less than one allocation, and more than what the maps and trees of the memory backend do now
/// and then.
const TOLERANCE: f64 = 0.5;

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

/// Whether `idem-axum` has its feature `postgres`. Not only the one of this package turns it on: a build of the workspace
/// does, by other packages.
fn has_postgres() -> bool {
    mod otherwise {
        #[allow(dead_code, reason = "only its name is wanted, if at all")]
        pub(super) struct Transaction;

        /// Of whatever has that name; what a glob brings into a block goes before what is around it.
        pub(super) fn name() -> &'static str {
            #[allow(clippy::wildcard_imports, unused_imports, reason = "it names what may not be there")]
            use idem_axum::*;
            std::any::type_name::<Transaction>()
        }
    }
    otherwise::name().starts_with("idem_axum")
}

/// Checks a count; a better one is to be written down as well, or the next one that is worse goes unnoticed.
fn assert_is(count: f64, [alone, with_postgres]: [f64; 2]) {
    let expected = if has_postgres() { with_postgres } else { alone };
    assert!(
        (count - expected).abs() <= TOLERANCE,
        "{count} in place of {expected}; where that is meant, say so above and in docs/performance.md"
    );
}

#[test]
fn a_first_request_allocates_as_often_as_it_did() {
    assert_is(beyond_bare(Kind::First), [FIRST, FIRST_WITH_POSTGRES]);
}

#[test]
fn a_replay_allocates_as_often_as_it_did() {
    assert_is(beyond_bare(Kind::Replay), [REPLAY, REPLAY_WITH_POSTGRES]);
}
