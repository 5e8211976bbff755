//! Each word of each option, and defaults by the same names.

use axum::routing::{MethodRouter, post};
use idem_axum::{AfterCrash, Compared, InFlight, OnOutage, Policy, StoredAnswers, idempotent};

#[idempotent(ttl = "1m", scope = global, in_flight = "reject", after_crash = "rerun", store = "final")]
async fn first() {}

#[idempotent(ttl = "1m", scope = global, in_flight = "accept", store = "all", fingerprint = "request")]
async fn second() {}

#[idempotent(ttl = "1m", scope = global, on_outage = "refuse", fingerprint = "none", required = false, wait = "1s")]
async fn third() {}

#[test]
fn a_policy_has_them_too() {
    let words = Policy::new()
        .with_in_flight(InFlight::Accept)
        .with_after_crash(AfterCrash::Rerun)
        .with_store(StoredAnswers::Final)
        .with_fingerprint(Compared::Request)
        .with_on_outage(OnOutage::Refuse)
        .with_required(false)
        .with_header("X-Key");
    assert_ne!(words, Policy::default());
}

pub(crate) fn route() -> MethodRouter {
    post(first).put(second).patch(third)
}
