//! Layers that count requests: they count a replay, and not a handler whose client has left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use idem_axum::idempotent;
use idem_tests::{Call, PATIENCE, Service};
use reqwest::Method;
use tokio::sync::Semaphore;
use tower::limit::GlobalConcurrencyLimitLayer;

use super::Gate;

#[idempotent(ttl = "1h", scope = global)]
async fn unbounded(Extension(gate): Extension<Gate>) -> StatusCode {
    gate.pass().await;
    StatusCode::CREATED
}

/// Takes its place in its body: an argument would be taken for a replay too, and held by every duplicate that waits.
#[idempotent(ttl = "1h", scope = global)]
async fn bounded(Extension(gate): Extension<Gate>, Extension(places): Extension<Arc<Semaphore>>) -> StatusCode {
    let Ok(_place) = places.try_acquire() else {
        return StatusCode::SERVICE_UNAVAILABLE; // not kept: a retry runs once there is a place
    };
    gate.pass().await;
    StatusCode::CREATED
}

fn call(service: &Service, path: &str, key: &str) -> Call {
    service.client.call(Method::POST, path).key(key)
}

/// Sends a request and hangs up while its handler is at the gate, which stays closed.
async fn leave_at_the_gate(service: &Service, gate: &Gate, call: Call) {
    gate.close();
    let sending = tokio::spawn(call.try_send());
    gate.reached().await;
    sending.abort();
    service.app.wait_until_departed(1).await;
}

#[tokio::test]
async fn a_concurrency_limit_outside_does_not_count_a_handler_whose_client_has_left() {
    let gate = Gate::default();
    let routes = Router::new().route("/unbounded", post(unbounded));
    let one = GlobalConcurrencyLimitLayer::new(1);
    let service = super::service(&gate, routes, |router| router.layer(one)).await;
    leave_at_the_gate(&service, &gate, call(&service, "/unbounded", "left")).await;
    // A second one begins although the first one is still at work.
    let second = tokio::spawn(call(&service, "/unbounded", "second").send());
    gate.reached().await;
    gate.open();
    gate.open();
    assert_eq!(second.await.expect("no panic").status, StatusCode::CREATED);
    service.idempotency.drain().await;
}

#[tokio::test]
async fn a_place_that_the_handler_takes_is_held_to_its_end_and_a_replay_needs_none() {
    let gate = Gate::default();
    let places = Arc::new(Semaphore::new(1));
    let routes = Router::new()
        .route("/bounded", post(bounded))
        .layer(Extension(places.clone()));
    let service = super::service(&gate, routes, |router| router).await;
    leave_at_the_gate(&service, &gate, call(&service, "/bounded", "left")).await;
    let refused = tokio::time::timeout(PATIENCE, call(&service, "/bounded", "second").send());
    let refused = refused.await.expect("it does not wait for the gate");
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    gate.open();
    service.idempotency.drain().await;
    let second = call(&service, "/bounded", "second").send().await;
    assert_eq!(second.status, StatusCode::CREATED);

    let _all = places.acquire().await.expect("it is not closed");
    let replay = call(&service, "/bounded", "left").send().await;
    assert_eq!(replay.status, StatusCode::CREATED);
    assert!(replay.is_replay());
}

/// Lets so many requests pass.
async fn spend(State(budget): State<Arc<AtomicU32>>, request: Request, next: Next) -> Response {
    let spent = budget.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    match spent {
        Ok(_) => next.run(request).await,
        Err(_) => StatusCode::TOO_MANY_REQUESTS.into_response(),
    }
}

#[tokio::test]
async fn a_rate_limit_counts_a_replay_and_what_it_refuses_claims_nothing() {
    let budget = Arc::new(AtomicU32::new(2));
    let routes = Router::new().route("/unbounded", post(unbounded));
    let limit = from_fn_with_state(budget.clone(), spend);
    let service = super::service(&Gate::default(), routes, |router| router.layer(limit)).await;
    let first = call(&service, "/unbounded", "k").send().await;
    call(&service, "/unbounded", "k").send().await.assert_replays(&first);
    for key in ["k", "new"] {
        let refused = call(&service, "/unbounded", key).send().await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    }
    budget.store(2, Ordering::SeqCst);
    call(&service, "/unbounded", "k").send().await.assert_replays(&first);
    let new = call(&service, "/unbounded", "new").send().await;
    assert_eq!(new.status, StatusCode::CREATED);
    assert!(!new.is_replay());
}
