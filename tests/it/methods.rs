//! Methods that are safe by themselves are like any other under the attribute; HEAD is a method of its own.

use std::convert::Infallible;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, ETAG};
use axum::response::IntoResponse;
use axum::routing::{get, head, options};
use futures_util::stream;
use idem_axum::{Execution, idempotent};
use idem_tests::{Answer, App, Service, on_every_backend};
use reqwest::Method;

on_every_backend! {
    routes: super::routes();
    every_method_needs_a_key_and_is_replayed
    head_runs_by_itself_and_is_replayed_without_a_body
    head_and_get_of_one_name_are_different_requests
    where_nothing_is_compared_head_gets_the_headers_of_get_and_get_the_body_of_head
    a_streamed_answer_to_head_is_stored_though_nobody_reads_it
    an_answer_to_head_may_tell_of_a_body_that_it_does_not_have
}

/// Says which run it is.
#[idempotent(ttl = "1m", scope = global)]
async fn look(execution: Execution) -> impl IntoResponse {
    let token = execution.token().map(|token| token.to_string());
    ([(ETAG, "\"1\"")], token.unwrap_or_default())
}

#[idempotent(ttl = "1m", scope = global, name = "named")]
async fn named(execution: Execution) -> impl IntoResponse {
    let token = execution.token().map(|token| token.to_string());
    ([(ETAG, "\"1\"")], token.unwrap_or_default())
}

#[idempotent(ttl = "1m", scope = global, name = "uncompared", fingerprint = "none")]
async fn uncompared(execution: Execution) -> impl IntoResponse {
    let token = execution.token().map(|token| token.to_string());
    ([(ETAG, "\"1\"")], token.unwrap_or_default())
}

#[idempotent(ttl = "1m", scope = global)]
async fn streamed() -> Body {
    let chunks = stream::unfold(0, |sent| async move {
        tokio::task::yield_now().await;
        (sent < 3).then(|| (Ok::<_, Infallible>(Bytes::from_static(b"chunk")), sent + 1))
    });
    Body::from_stream(chunks)
}

#[idempotent(ttl = "1m", scope = global)]
async fn only_head() -> impl IntoResponse {
    [(CONTENT_LENGTH, "1234")]
}

fn routes() -> Router<App> {
    Router::new()
        .route("/look", get(look).merge(options(look)))
        .route("/named", get(named))
        .route("/uncompared", get(uncompared))
        .route("/streamed", get(streamed))
        .route("/only-head", head(only_head))
}

async fn call(service: &Service, method: Method, path: &str, key: &str) -> Answer {
    service.client.call(method, path).key(key).send().await
}

async fn every_method_needs_a_key_and_is_replayed(service: Service) {
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        let missing = service.client.call(method.clone(), "/look").send().await;
        assert_eq!(missing.status, StatusCode::BAD_REQUEST, "{method}");
        let first = call(&service, method.clone(), "/look", "k").await;
        assert_eq!(first.status, StatusCode::OK, "{method}");
        call(&service, method, "/look", "k").await.assert_replays(&first);
    }
}

async fn head_runs_by_itself_and_is_replayed_without_a_body(service: Service) {
    let first = call(&service, Method::GET, "/look", "k").await;
    let head = call(&service, Method::HEAD, "/look", "k").await;
    assert!(!head.is_replay());
    assert!(head.body.is_empty());
    assert_eq!(head.headers[CONTENT_LENGTH], first.body.len().to_string());
    assert_eq!(head.headers[ETAG], "\"1\"");
    call(&service, Method::HEAD, "/look", "k").await.assert_replays(&head);
    call(&service, Method::GET, "/look", "k").await.assert_replays(&first);
}

async fn head_and_get_of_one_name_are_different_requests(service: Service) {
    call(&service, Method::GET, "/named", "k").await;
    let head = call(&service, Method::HEAD, "/named", "k").await;
    assert_eq!(head.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(head.body.is_empty());
    let first = call(&service, Method::HEAD, "/named", "l").await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(call(&service, Method::GET, "/named", "l").await.problem(), "key-reused");
}

async fn where_nothing_is_compared_head_gets_the_headers_of_get_and_get_the_body_of_head(service: Service) {
    let first = call(&service, Method::GET, "/uncompared", "k").await;
    let head = call(&service, Method::HEAD, "/uncompared", "k").await;
    assert!(head.is_replay());
    assert!(head.body.is_empty());
    let without_body = Answer {
        body: Bytes::new(),
        ..first
    };
    head.assert_replays(&without_body);

    let head = call(&service, Method::HEAD, "/uncompared", "l").await;
    let get = call(&service, Method::GET, "/uncompared", "l").await;
    assert!(get.is_replay());
    assert_eq!(head.headers[CONTENT_LENGTH], get.body.len().to_string());
    assert!(!get.body.is_empty());
}

async fn a_streamed_answer_to_head_is_stored_though_nobody_reads_it(service: Service) {
    let first = call(&service, Method::HEAD, "/streamed", "k").await;
    assert_eq!(first.status, StatusCode::OK);
    service.idempotency.drain().await;
    call(&service, Method::HEAD, "/streamed", "k")
        .await
        .assert_replays(&first);
}

async fn an_answer_to_head_may_tell_of_a_body_that_it_does_not_have(service: Service) {
    let first = call(&service, Method::HEAD, "/only-head", "k").await;
    assert_eq!(first.headers[CONTENT_LENGTH], "1234");
    call(&service, Method::HEAD, "/only-head", "k")
        .await
        .assert_replays(&first);
}
