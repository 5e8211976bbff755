//! A layer that lets each token pass once, as those against forged and repeated requests do.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Form, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use idem_axum::idempotent;
use idem_tests::{Call, Service};
use reqwest::Method;
use serde::Deserialize;

use super::Gate;

/// The tokens that have passed.
#[derive(Clone, Default)]
struct Burned(Arc<Mutex<HashSet<Vec<u8>>>>);

async fn burn(State(burned): State<Burned>, request: Request, next: Next) -> Response {
    let token = request
        .headers()
        .get("x-token")
        .map(|token| token.as_bytes().to_owned());
    let is_new = token.is_some_and(|token| {
        let mut burned = burned.0.lock().unwrap_or_else(PoisonError::into_inner);
        burned.insert(token)
    });
    if is_new {
        next.run(request).await
    } else {
        StatusCode::FORBIDDEN.into_response()
    }
}

#[idempotent(ttl = "1h", scope = global)]
async fn transfer() -> StatusCode {
    StatusCode::CREATED
}

#[derive(Deserialize)]
struct Transfer {
    cents: u32,
    #[expect(dead_code, reason = "the form has it, and a layer would have looked at it")]
    token: String,
}

#[idempotent(ttl = "1h", scope = global)]
async fn compared_with_its_token(Form(transfer): Form<Transfer>) -> String {
    transfer.cents.to_string()
}

#[idempotent(ttl = "1h", scope = global, fingerprint = transfer.cents)]
async fn compared_without_its_token(Form(transfer): Form<Transfer>) -> String {
    transfer.cents.to_string()
}

async fn service(wrap: impl FnOnce(Router) -> Router) -> Service {
    let routes = Router::new()
        .route("/transfer", post(transfer))
        .route("/with-its-token", post(compared_with_its_token))
        .route("/without-its-token", post(compared_without_its_token));
    super::service(&Gate::default(), routes, wrap).await
}

fn form(service: &Service, path: &str, body: &'static str) -> Call {
    let call = service.client.call(Method::POST, path).key("k");
    call.header("content-type", b"application/x-www-form-urlencoded")
        .body(body)
}

#[tokio::test]
async fn a_retry_with_a_burned_token_is_refused_and_one_with_a_new_token_is_replayed() {
    let service = service(|router| router.layer(from_fn_with_state(Burned::default(), burn))).await;
    let send = |token: &'static str| {
        let call = service.client.call(Method::POST, "/transfer").key("k");
        call.header("x-token", token.as_bytes()).send()
    };
    let first = send("one").await;
    assert_eq!(first.status, StatusCode::CREATED);
    let same_token = send("one").await;
    assert_eq!(same_token.status, StatusCode::FORBIDDEN);
    assert!(!same_token.is_replay());
    // A header is not compared.
    send("two").await.assert_replays(&first);
}

#[tokio::test]
async fn a_new_token_in_the_body_is_another_request_unless_the_comparison_leaves_it_out() {
    let service = service(|router| router).await;
    let first = form(&service, "/with-its-token", "cents=5&token=one").send().await;
    assert_eq!(first.status, StatusCode::OK);
    let retry = form(&service, "/with-its-token", "cents=5&token=two").send().await;
    assert_eq!(retry.problem(), "key-reused");

    let first = form(&service, "/without-its-token", "cents=5&token=one").send().await;
    let retry = form(&service, "/without-its-token", "cents=5&token=two").send().await;
    retry.assert_replays(&first);
    let other = form(&service, "/without-its-token", "cents=6&token=three").send().await;
    assert_eq!(other.problem(), "key-reused");
}
