//! IDEM-3: what tells one request from another under its key.

use std::collections::BTreeMap;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Form, Router};
use idem_axum::{MemoryBackend, idempotent};
use idem_tests::{Answer, App, Log, Service, on_every_backend};
use reqwest::Method;
use serde::{Deserialize, Serialize};

on_every_backend! {
    routes: super::routes();
    a_path_parameter_outside_of_the_expression_counts
    the_query_and_the_method_outside_of_the_expression_count
    where_nothing_is_compared_neither_path_nor_query_counts
    bytes_in_another_encoding_are_another_request
}

#[derive(Debug, Serialize, Deserialize)]
struct Capture {
    cents: u32,
    /// A retry has another one.
    sent_at: u32,
}

#[idempotent(ttl = "24h", scope = global, name = "capture", fingerprint = capture.cents)]
async fn capture(Path(order): Path<u32>, Form(capture): Form<Capture>) -> (StatusCode, String) {
    (StatusCode::CREATED, format!("{} cents of order {order}", capture.cents))
}

#[idempotent(ttl = "24h", scope = global, name = "capture", fingerprint = capture.cents)]
async fn capture_of(Path((_, order)): Path<(u32, u32)>, Form(capture): Form<Capture>) -> (StatusCode, String) {
    (StatusCode::CREATED, format!("{} cents of order {order}", capture.cents))
}

#[idempotent(ttl = "24h", scope = global, name = "anything", fingerprint = "none")]
async fn anything(body: String) -> String {
    body
}

#[idempotent(ttl = "24h", scope = global)]
async fn compared(body: String) -> String {
    body
}

#[idempotent(ttl = "24h", scope = global, name = "elsewhere", fingerprint = body.len())]
async fn elsewhere(body: String) -> String {
    body
}

fn routes() -> Router<App> {
    let nested = Router::new().route("/{id}/capture", post(capture_of));
    Router::new()
        .route("/captures/{id}", post(capture).put(capture))
        .route("/v2/captures/{order}", post(capture))
        .nest("/tenants/{tenant}", nested)
        .route("/anything", post(anything))
        .route("/anything/{else}", post(anything))
        .route("/compared", post(compared))
}

async fn send(service: &Service, method: Method, target: &str, key: &str, body: &'static str) -> Answer {
    let call = service.client.call(method, target).key(key).body(body);
    call.header("content-type", b"application/x-www-form-urlencoded")
        .send()
        .await
}

async fn a_path_parameter_outside_of_the_expression_counts(service: Service) {
    let send = |target: &'static str, body| send(&service, Method::POST, target, "k", body);
    let first = send("/captures/1", "cents=5&sent_at=1").await;
    assert_eq!(first.body, "5 cents of order 1");
    send("/captures/1", "cents=5&sent_at=2").await.assert_replays(&first);
    assert_eq!(send("/captures/2", "cents=5&sent_at=1").await.problem(), "key-reused");
    assert_eq!(send("/captures/1", "cents=6&sent_at=1").await.problem(), "key-reused");
    // The name of a parameter and the route around it may change; its value is the same.
    send("/v2/captures/1", "cents=5&sent_at=3").await.assert_replays(&first);
    // Two values are not one.
    assert_eq!(
        send("/tenants/1/1/capture", "cents=5&sent_at=1").await.problem(),
        "key-reused"
    );
}

async fn the_query_and_the_method_outside_of_the_expression_count(service: Service) {
    let body = "cents=5&sent_at=1";
    let dry = send(&service, Method::POST, "/captures/1?dry_run=true", "k", body).await;
    assert_eq!(dry.status, StatusCode::CREATED);
    assert_eq!(
        send(&service, Method::POST, "/captures/1", "k", body).await.problem(),
        "key-reused"
    );
    let put = send(&service, Method::PUT, "/captures/1?dry_run=true", "k", body).await;
    assert_eq!(put.problem(), "key-reused");
}

async fn where_nothing_is_compared_neither_path_nor_query_counts(service: Service) {
    let first = send(&service, Method::POST, "/anything", "k", "a").await;
    let other = send(&service, Method::POST, "/anything/else?b=1", "k", "b").await;
    other.assert_replays(&first);
}

async fn bytes_in_another_encoding_are_another_request(service: Service) {
    let send = |encoding: Option<&'static str>| {
        let call = service.client.call(Method::POST, "/compared").key("k").body("x");
        match encoding {
            Some(encoding) => call.header("content-encoding", encoding.as_bytes()).send(),
            None => call.send(),
        }
    };
    let first = send(None).await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(send(Some("gzip")).await.problem(), "key-reused");
    send(Some("identity")).await.assert_replays(&first);
}

#[tokio::test]
async fn where_no_route_has_matched_the_whole_path_counts() {
    let wrap = |router: Router| router;
    let fallback = Router::<App>::new().fallback(elsewhere);
    let idempotency = idem_axum::Idempotency::new(MemoryBackend::new());
    let service = Service::wrapped(idempotency, fallback, wrap).await;
    let send = |target: &'static str| send(&service, Method::POST, target, "k", "x");
    let first = send("/a/1").await;
    send("/a/1").await.assert_replays(&first);
    assert_eq!(send("/a/2").await.problem(), "key-reused");
}

#[derive(Serialize, Deserialize)]
struct Pay {
    amount: Option<f64>,
}

/// What a handler makes of the amount that it was sent.
#[derive(Serialize)]
enum Shown {
    Bare(f64),
    Short(f32),
    Nested { parts: Vec<(u8, f64)> },
    ByName(BTreeMap<&'static str, Option<f64>>),
}

impl Pay {
    fn shown(&self, how: &str) -> Shown {
        let amount = self.amount.unwrap_or_default();
        #[allow(clippy::cast_possible_truncation, reason = "NaN and infinities stay what they are")]
        match how {
            "bare" => Shown::Bare(amount),
            "short" => Shown::Short(amount as f32),
            "nested" => Shown::Nested {
                parts: vec![(1, 1.0), (2, amount)],
            },
            _ => Shown::ByName(BTreeMap::from([("amount", self.amount)])),
        }
    }
}

#[idempotent(ttl = "24h", scope = global, fingerprint = pay.shown(how))]
async fn charge(Path(how): Path<String>, Form(pay): Form<Pay>) -> (StatusCode, String) {
    (StatusCode::CREATED, format!("charged {:?} {how}", pay.amount))
}

#[tokio::test]
async fn numbers_without_a_json_form_are_refused_before_anything_is_claimed() {
    let (log, _guard) = Log::listen(tracing::Level::ERROR);
    let service = Service::memory(Router::<App>::new().route("/charge/{how}", post(charge))).await;
    for target in ["/charge/bare", "/charge/short", "/charge/nested", "/charge/by-name"] {
        for body in ["amount=NaN", "amount=inf", "amount=-inf"] {
            let answer = send(&service, Method::POST, target, target, body).await;
            assert_eq!(answer.problem(), "not-configured", "{target} {body}");
        }
        let first = send(&service, Method::POST, target, target, "amount=1").await;
        assert_eq!(first.status, StatusCode::CREATED, "nothing was claimed");
        let other = send(&service, Method::POST, target, target, "amount=2").await;
        assert_eq!(other.problem(), "key-reused");
    }
    assert!(!log.lines_with("JSON has no number NaN").is_empty(), "{}", log.text());
}
