//! What an application sets for all its handlers, and what a handler's attribute says in its place.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use idem_axum::{Compared, Idempotency, InFlight, MemoryBackend, Policy, StoredAnswers, idempotent};
use idem_tests::{Answer, App, Order, Service, Tenant};
use reqwest::Method;

#[idempotent(ttl = "1m", scope = global)]
async fn open(State(app): State<App>, body: String) -> (StatusCode, String) {
    answer(&app, body)
}

#[idempotent(
    ttl = "1m",
    scope = global,
    header = "Idempotency-Key",
    required = true,
    store = "final",
    fingerprint = "request",
    max_response = "1KiB"
)]
async fn set(State(app): State<App>, body: String) -> (StatusCode, String) {
    answer(&app, body)
}

#[idempotent(ttl = "1m", scope = tenant, wait = "100ms")]
async fn waited_for_briefly(State(app): State<App>, tenant: Tenant, Json(order): Json<Order>) -> StatusCode {
    app.execute(&tenant, &order).await.0
}

#[idempotent(ttl = "1m", scope = global, fingerprint = body.len())]
async fn of_a_value(body: String) -> String {
    body
}

/// A status, or a text.
fn answer(_: &App, body: String) -> (StatusCode, String) {
    let status = body.parse().ok().and_then(|status| StatusCode::from_u16(status).ok());
    (status.unwrap_or(StatusCode::OK), body)
}

async fn service(defaults: Policy) -> Service {
    let idempotency = Idempotency::new(MemoryBackend::new()).with_defaults(defaults);
    let routes = Router::new()
        .route("/open", post(open))
        .route("/set", post(set))
        .route("/briefly", post(waited_for_briefly))
        .route("/of-a-value", post(of_a_value));
    Service::wrapped(idempotency, routes, |router| router).await
}

async fn send(service: &Service, path: &str, header: &str, body: &'static str) -> Answer {
    let call = service.client.call(Method::POST, path).header(header, b"k");
    call.body(body).send().await
}

#[tokio::test]
async fn the_header_and_whether_it_is_required_are_the_default_s_unless_the_attribute_says_so() {
    let service = service(Policy::new().with_header("X-Request-Key").with_required(false)).await;
    let first = send(&service, "/open", "x-request-key", "a").await;
    assert_eq!(first.status, StatusCode::OK);
    send(&service, "/open", "x-request-key", "a")
        .await
        .assert_replays(&first);
    // Another header is none, and none is needed.
    for _ in 0..2 {
        assert!(!send(&service, "/open", "idempotency-key", "a").await.is_replay());
    }

    assert_eq!(
        send(&service, "/set", "x-request-key", "a").await.problem(),
        "key-missing"
    );
    let first = send(&service, "/set", "idempotency-key", "a").await;
    send(&service, "/set", "idempotency-key", "a")
        .await
        .assert_replays(&first);
}

#[tokio::test]
async fn what_is_compared_is_the_default_s_unless_the_attribute_says_so() {
    let service = service(Policy::new().with_fingerprint(Compared::Nothing)).await;
    let first = send(&service, "/open", "idempotency-key", "a").await;
    send(&service, "/open", "idempotency-key", "b")
        .await
        .assert_replays(&first);
    for path in ["/set", "/of-a-value"] {
        assert_eq!(
            send(&service, path, "idempotency-key", "a").await.status,
            StatusCode::OK
        );
        let other = send(&service, path, "idempotency-key", "bb").await;
        assert_eq!(other.problem(), "key-reused", "{path}");
    }
}

#[tokio::test]
async fn which_answers_are_stored_is_the_default_s_unless_the_attribute_says_so() {
    let service = service(Policy::new().with_store(StoredAnswers::All)).await;
    let first = send(&service, "/open", "idempotency-key", "500").await;
    assert_eq!(first.status, StatusCode::INTERNAL_SERVER_ERROR);
    send(&service, "/open", "idempotency-key", "500")
        .await
        .assert_replays(&first);
    for _ in 0..2 {
        assert!(!send(&service, "/set", "idempotency-key", "500").await.is_replay());
    }
}

#[tokio::test]
async fn how_large_an_answer_may_be_is_the_default_s_unless_the_attribute_says_so() {
    let service = service(Policy::new().with_max_response(2)).await;
    assert_eq!(send(&service, "/open", "idempotency-key", "long").await.body, "long");
    let again = send(&service, "/open", "idempotency-key", "long").await;
    assert_eq!(again.problem(), "response-not-stored");
    let first = send(&service, "/set", "idempotency-key", "long").await;
    send(&service, "/set", "idempotency-key", "long")
        .await
        .assert_replays(&first);
}

#[tokio::test]
async fn what_a_duplicate_in_flight_gets_is_the_default_s_unless_the_attribute_says_so() {
    let service = service(Policy::new().with_in_flight(InFlight::Accept)).await;
    let order = Order::new("o").held();
    let first = tokio::spawn(service.client.order("k", &order).send());
    service.app.wait_until_started(1).await;
    let duplicate = service.client.order("k", &order).send().await;
    assert_eq!(duplicate.status, StatusCode::ACCEPTED);

    // Its attribute says `in_flight = "wait"`.
    let waiting = || service.client.order_at("/orders/waiting", "k", &order).send();
    let (one, other) = (tokio::spawn(waiting()), tokio::spawn(waiting()));
    service.app.wait_until_started(2).await;
    service.app.open_gate();
    let (one, other) = (one.await.expect("an answer"), other.await.expect("an answer"));
    assert_eq!([one.status, other.status], [StatusCode::CREATED; 2]);
    assert_eq!(first.await.expect("an answer").status, StatusCode::CREATED);
    assert_eq!(service.app.executions("o"), 2);
}

#[tokio::test]
async fn how_long_a_duplicate_waits_by_default_is_the_attribute_s_where_it_says_nothing_else() {
    let waits = Policy::new().with_in_flight(InFlight::Wait);
    let service = service(waits.with_wait(Policy::LONGEST_WAIT)).await;
    let order = Order::new("o").held();
    let call = || service.client.order_at("/briefly", "k", &order).send();
    let first = tokio::spawn(call());
    service.app.wait_until_started(1).await;
    // The first one is held until the duplicate has been answered.
    let duplicate = tokio::time::timeout(Duration::from_mins(1), call()).await;
    assert_eq!(duplicate.expect("it waits for 100 ms").problem(), "in-flight");
    service.app.open_gate();
    assert_eq!(first.await.expect("an answer").status, StatusCode::CREATED);
    assert!(call().await.is_replay());
}
