//! The attribute takes what a policy takes: each bound is checked by both, here at compile time.

use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

#[idempotent(
    ttl = "100ms",
    scope = global,
    lease = "100ms",
    in_flight = "wait",
    wait = "100ms",
    max_response = "1B",
    rerun_within = "100ms",
    max_attempts = 1,
    max_run = "100ms"
)]
async fn least() {}

#[idempotent(
    ttl = "3650d",
    scope = global,
    lease = "24h",
    in_flight = "wait",
    wait = "1h",
    max_response = "64MiB",
    rerun_within = "3650d",
    max_attempts = 4294967295,
    max_run = "3650d"
)]
async fn most() {}

#[idempotent(ttl = "1m", scope = global, header = "!#$%&'*+-.^_`|~09azAZ", required = false)]
async fn any_token() -> &'static str {
    "placed"
}

#[test]
fn a_policy_refuses_what_is_beyond() {
    use std::time::Duration;

    use idem_axum::Policy;

    let beyond: [fn() -> Policy; 9] = [
        || Policy::new().with_lease(Duration::from_millis(99)),
        || Policy::new().with_lease(Duration::from_millis(86_400_001)),
        || Policy::new().with_wait(Duration::from_millis(99)),
        || Policy::new().with_wait(Duration::from_millis(3_600_001)),
        || Policy::new().with_max_response(64 * 1024 * 1024 + 1),
        || Policy::new().with_rerun_within(Duration::from_millis(99)),
        || Policy::new().with_rerun_within(Duration::from_hours(24 * 3650 + 1)),
        || Policy::new().with_max_attempts(0),
        || Policy::new().with_max_run(Duration::from_millis(99)),
    ];
    for policy in beyond {
        assert!(std::panic::catch_unwind(policy).is_err());
    }
}

pub(crate) fn route() -> MethodRouter {
    post(most).put(least).patch(any_token)
}
