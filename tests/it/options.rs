//! IDEM-3, IDEM-11, IDEM-12: what the attribute lets an author choose about comparing and storing.

use std::collections::HashMap;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use idem_axum::idempotent;
use idem_tests::{Answer, App, Order, Service, Tenant, on_every_backend};
use reqwest::Method;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

on_every_backend! {
    routes: super::routes();
    the_word_for_what_is_stored_decides_by_the_status
    a_panic_is_released_whatever_is_stored
    an_answer_of_the_size_that_is_set_is_stored_and_a_larger_one_is_not
    with_no_fingerprint_every_request_under_a_key_is_equal
    an_expression_compares_what_it_names_beside_the_target
    an_expression_does_not_care_for_the_order_of_members
    a_value_without_a_serde_form_is_refused_and_never_run
    a_deploy_that_changes_what_is_compared_refuses_no_retry
}

#[idempotent(ttl = "1m", scope = global)]
async fn finals(State(app): State<App>, tenant: Tenant, Json(order): Json<Order>) -> (StatusCode, Json<Value>) {
    app.execute(&tenant, &order).await
}

#[idempotent(ttl = "1m", scope = global, store = "success")]
async fn successes(State(app): State<App>, tenant: Tenant, Json(order): Json<Order>) -> (StatusCode, Json<Value>) {
    app.execute(&tenant, &order).await
}

#[idempotent(ttl = "1m", scope = global, store = "all")]
async fn everything(State(app): State<App>, tenant: Tenant, Json(order): Json<Order>) -> (StatusCode, Json<Value>) {
    app.execute(&tenant, &order).await
}

#[idempotent(ttl = "1m", scope = global, store = "all")]
async fn panicking() -> StatusCode {
    panic!("in a handler, on purpose")
}

#[idempotent(ttl = "1m", scope = global, max_response = "1KiB")]
async fn small(body: Bytes) -> Bytes {
    body
}

#[idempotent(ttl = "1m", scope = global, max_response = "3 MB")]
async fn large(size: String) -> Result<Vec<u8>, StatusCode> {
    Ok(vec![b'x'; size.parse().map_err(|_| StatusCode::BAD_REQUEST)?])
}

#[idempotent(ttl = "1m", scope = global, fingerprint = "none")]
async fn uncompared(body: String) -> String {
    body
}

#[deny(unused_variables)]
#[idempotent(ttl = "1m", scope = global, fingerprint = (tenant.to_string(), order.order))]
async fn by_parts(State(app): State<App>, tenant: Tenant, Json(order): Json<Order>) -> (StatusCode, Json<Value>) {
    app.execute(&tenant, &order).await
}

#[idempotent(ttl = "1m", scope = global, fingerprint = amounts)]
async fn by_map(Json(amounts): Json<HashMap<String, u32>>) -> String {
    amounts.len().to_string()
}

/// Has no serde form, though its type says so.
#[derive(Deserialize)]
struct Secret(#[allow(dead_code, reason = "it is only compared")] String);

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("a secret is not shown"))
    }
}

#[idempotent(ttl = "1m", scope = global, fingerprint = (1, secret))]
async fn unserializable(State(app): State<App>, tenant: Tenant, Json(secret): Json<Secret>) {
    drop(secret);
    let _answer = app.execute(&tenant, &Order::new("secret")).await;
}

#[idempotent(ttl = "1m", scope = global, name = "deployed")]
async fn before_the_deploy(body: String) -> String {
    body
}

#[idempotent(ttl = "1m", scope = global, name = "deployed", fingerprint = body.len())]
async fn after_the_deploy(body: String) -> String {
    body
}

fn routes() -> Router<App> {
    Router::new()
        .route("/finals", post(finals))
        .route("/successes", post(successes))
        .route("/everything", post(everything))
        .route("/panicking", post(panicking))
        .route("/small", post(small))
        .route("/large", post(large))
        .route("/uncompared", post(uncompared))
        .route("/by-parts", post(by_parts))
        .route("/by-map", post(by_map))
        .route("/unserializable", post(unserializable))
        .route("/before", post(before_the_deploy))
        .route("/after", post(after_the_deploy))
}

async fn post_text(service: &Service, path: &str, key: &str, body: impl Into<String>) -> Answer {
    let call = service.client.call(Method::POST, path).key(key);
    call.body(body.into()).send().await
}

async fn post_json(service: &Service, path: &str, key: &str, body: &str) -> Answer {
    let call = service.client.call(Method::POST, path).key(key);
    let call = call.header("content-type", b"application/json");
    call.body(body.to_owned()).send().await
}

async fn the_word_for_what_is_stored_decides_by_the_status(service: Service) {
    let statuses = [200, 201, 301, 400, 404, 408, 409, 422, 425, 429, 499, 500, 503, 599];
    let words: [(&str, &[u16]); 3] = [
        ("/finals", &[200, 201, 301, 400, 404, 409, 422, 499]),
        ("/successes", &[200, 201, 301]),
        ("/everything", &statuses),
    ];
    for (path, stored) in words {
        for status in statuses {
            let name = format!("{path} {status}");
            let order = Order::new(&name).answered_with(status);
            let first = service.client.order_at(path, &name, &order).send().await;
            let retry = service.client.order_at(path, &name, &order).send().await;
            assert_eq!(first.status, status, "{name}");
            if stored.contains(&status) {
                retry.assert_replays(&first);
            } else {
                assert!(!retry.is_replay(), "{name}");
                assert_eq!(service.app.executions(&name), 2, "{name}");
            }
        }
    }
}

async fn a_panic_is_released_whatever_is_stored(service: Service) {
    for _ in 0..2 {
        let answer = post_text(&service, "/panicking", "k", "").await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!answer.is_replay());
    }
}

async fn an_answer_of_the_size_that_is_set_is_stored_and_a_larger_one_is_not(service: Service) {
    let whole = post_text(&service, "/small", "whole", "x".repeat(1024)).await;
    let retry = post_text(&service, "/small", "whole", "x".repeat(1024)).await;
    retry.assert_replays(&whole);

    let larger = post_text(&service, "/small", "larger", "x".repeat(1025)).await;
    assert_eq!(larger.body.len(), 1025);
    let retry = post_text(&service, "/small", "larger", "x".repeat(1025)).await;
    assert_eq!(retry.problem(), "response-not-stored");

    // More than is stored where nothing is said.
    let large = post_text(&service, "/large", "large", "3000000").await;
    assert_eq!(large.body.len(), 3_000_000);
    let retry = post_text(&service, "/large", "large", "3000000").await;
    retry.assert_replays(&large);
}

async fn with_no_fingerprint_every_request_under_a_key_is_equal(service: Service) {
    let first = post_text(&service, "/uncompared", "k", "a").await;
    let other = post_json(&service, "/uncompared?more", "k", "b").await;
    assert_eq!(first.body, "a");
    other.assert_replays(&first);
}

async fn an_expression_compares_what_it_names_beside_the_target(service: Service) {
    let order = Order::new("a");
    let first = service.client.order_at("/by-parts", "k", &order).send().await;
    // Another body, but the same tenant and order.
    let reworded = order.clone().answered_with(204);
    let retry = service.client.order_at("/by-parts", "k", &reworded);
    retry.send().await.assert_replays(&first);

    let other = service.client.order_at("/by-parts?again", "k", &reworded);
    assert_eq!(other.send().await.problem(), "key-reused");
    let other = service.client.order_at("/by-parts", "k", &Order::new("b"));
    assert_eq!(other.send().await.problem(), "key-reused");
    let other = service.client.order_at("/by-parts", "k", &order).tenant("globex");
    assert_eq!(other.send().await.problem(), "key-reused");
}

async fn an_expression_does_not_care_for_the_order_of_members(service: Service) {
    let amounts: Vec<_> = (0..32).map(|index| format!("\"m{index}\": {index}")).collect();
    let there = format!("{{{}}}", amounts.join(","));
    let back: Vec<_> = amounts.iter().rev().cloned().collect();
    let first = post_json(&service, "/by-map", "k", &there).await;
    let retry = post_json(&service, "/by-map", "k", &format!("{{{}}}", back.join(", "))).await;
    retry.assert_replays(&first);
    let other = post_json(&service, "/by-map", "k", &there.replace(" 31", " 32")).await;
    assert_eq!(other.problem(), "key-reused");
}

async fn a_value_without_a_serde_form_is_refused_and_never_run(service: Service) {
    let secret = json!("tell nobody").to_string();
    let refused = post_json(&service, "/unserializable", "k", &secret).await;
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(refused.problem(), "not-configured");
    assert!(!String::from_utf8_lossy(&refused.body).contains("secret"));
    assert_eq!(service.app.executions("secret"), 0);
}

/// Fingerprints of different schemes cannot be compared, and a retry across a deploy is honest far more often than not.
async fn a_deploy_that_changes_what_is_compared_refuses_no_retry(service: Service) {
    let first = post_text(&service, "/before", "k", "a").await;
    post_text(&service, "/after", "k", "a").await.assert_replays(&first);
    let first = post_text(&service, "/after", "l", "a").await;
    post_text(&service, "/before", "l", "a").await.assert_replays(&first);
}
