//! A layer that writes the bodies of errors from an extension of the response.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use idem_axum::{IdempotencyProblem, idempotent};
use idem_tests::{Call, Service};
use reqwest::Method;
use serde_json::json;

use super::{Gate, hang_up};

#[derive(Clone)]
struct Reason(&'static str);

const REASON: Reason = Reason("no such account");

#[idempotent(ttl = "1h", scope = global)]
async fn left_to_the_layer(Extension(gate): Extension<Gate>) -> Response {
    gate.pass().await;
    (StatusCode::NOT_FOUND, Extension(REASON)).into_response()
}

/// The extension is for the log.
#[idempotent(ttl = "1h", scope = global)]
async fn written_by_the_handler(Extension(gate): Extension<Gate>) -> Response {
    gate.pass().await;
    (StatusCode::NOT_FOUND, Extension(REASON), body_of(&REASON)).into_response()
}

/// What is made of the status alone is the same for a replay.
#[idempotent(ttl = "1h", scope = global)]
async fn described_by_its_status() -> StatusCode {
    StatusCode::CONFLICT
}

fn body_of(reason: &Reason) -> Json<serde_json::Value> {
    Json(json!({ "error": reason.0 }))
}

/// What the layer has to say about a response: nothing where it has a body already, or is idem's own.
fn reason_of(response: &Response) -> Option<Reason> {
    let extensions = response.extensions();
    if extensions.get::<IdempotencyProblem>().is_some() || response.headers().contains_key(CONTENT_TYPE) {
        return None;
    }
    let of_the_status = (response.status() == StatusCode::CONFLICT).then_some(Reason("conflict"));
    extensions.get::<Reason>().cloned().or(of_the_status)
}

/// Puts a body into the response that came, so that its headers stay.
async fn with_bodies(mut response: Response) -> Response {
    if let Some(reason) = reason_of(&response) {
        let (parts, body) = body_of(&reason).into_response().into_parts();
        response.headers_mut().extend(parts.headers);
        *response.body_mut() = body;
    }
    response
}

/// Makes a new response, with the status of the one that came.
async fn made_anew(response: Response) -> Response {
    match reason_of(&response) {
        Some(reason) => (response.status(), body_of(&reason)).into_response(),
        None => response,
    }
}

async fn service(gate: &Gate) -> Service {
    let routes = Router::new()
        .route("/left-to-the-layer", post(left_to_the_layer))
        .route("/written-by-the-handler", post(written_by_the_handler))
        .route("/described-by-its-status", post(described_by_its_status));
    super::service(gate, routes, |router| router.layer(map_response(with_bodies))).await
}

fn call(service: &Service, path: &str, key: &str) -> Call {
    service.client.call(Method::POST, path).key(key)
}

#[tokio::test]
async fn a_body_that_a_layer_writes_from_an_extension_is_missing_from_the_replay() {
    let gate = Gate::default();
    let service = service(&gate).await;
    let first = call(&service, "/left-to-the-layer", "k").send().await;
    assert_eq!(first.json()["error"], REASON.0);
    let replay = call(&service, "/left-to-the-layer", "k").send().await;
    assert!(replay.is_replay());
    assert_eq!(replay.status, StatusCode::NOT_FOUND);
    assert_eq!(replay.body, "");

    hang_up(&service, &gate, call(&service, "/left-to-the-layer", "left")).await;
    let retry = call(&service, "/left-to-the-layer", "left").send().await;
    assert!(retry.is_replay());
    assert_eq!(retry.body, "");
}

#[tokio::test]
async fn a_body_that_the_handler_writes_is_in_the_replay_and_there_after_a_disconnect() {
    let gate = Gate::default();
    let service = service(&gate).await;
    let first = call(&service, "/written-by-the-handler", "k").send().await;
    assert_eq!(first.json()["error"], REASON.0);
    let replay = call(&service, "/written-by-the-handler", "k").send().await;
    replay.assert_replays(&first);

    hang_up(&service, &gate, call(&service, "/written-by-the-handler", "left")).await;
    let retry = call(&service, "/written-by-the-handler", "left").send().await;
    assert!(retry.is_replay());
    assert_eq!(retry.json()["error"], REASON.0);
}

#[tokio::test]
async fn a_body_that_a_layer_writes_from_the_status_is_in_the_replay_and_problems_are_left_alone() {
    let service = service(&Gate::default()).await;
    let first = call(&service, "/described-by-its-status", "k").send().await;
    assert_eq!(first.json()["error"], "conflict");
    let replay = call(&service, "/described-by-its-status", "k").send().await;
    replay.assert_replays(&first);
    let reused = call(&service, "/described-by-its-status", "k")
        .body("another")
        .send()
        .await;
    assert_eq!(reused.problem(), "key-reused");
}

#[tokio::test]
async fn a_layer_that_makes_a_new_response_drops_the_marker_of_a_replay() {
    let routes = Router::new().route("/described-by-its-status", post(described_by_its_status));
    let service = super::service(&Gate::default(), routes, |router| router.layer(map_response(made_anew))).await;
    let first = call(&service, "/described-by-its-status", "k").send().await;
    let replay = call(&service, "/described-by-its-status", "k").send().await;
    assert_eq!(replay.body, first.body);
    assert!(!replay.is_replay());
}
