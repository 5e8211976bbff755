//! A guarded handler that hands its request on to another one: each has a record, and knows its own.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{OriginalUri, Path, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use axum::routing::post;
use idem_axum::{Execution, Idempotency, MemoryBackend, idempotent};
use tower::ServiceExt as _;

/// The service behind.
#[derive(Clone)]
struct Behind(Router);

fn whose(execution: &Execution) -> String {
    execution.record_key().unwrap_or("nobody's").to_owned()
}

#[idempotent(ttl = "1h", scope = global, name = "before", required = false)]
async fn before(State(behind): State<Behind>, execution: Execution, request: Request) -> Result<String, StatusCode> {
    let answer: Response = behind.0.oneshot(request).await.unwrap_or_else(|never| match never {});
    let told = to_bytes(answer.into_body(), 1024).await;
    let told = told.map_err(|_| StatusCode::BAD_GATEWAY)?;
    Ok(format!("{} then {}", whose(&execution), String::from_utf8_lossy(&told)))
}

#[idempotent(ttl = "1h", scope = global, name = "behind", header = "x-behind")]
async fn behind(execution: Execution) -> String {
    whose(&execution)
}

async fn told(key: Option<&str>) -> String {
    let idempotency = Idempotency::new(MemoryBackend::new());
    let behind = Router::new().route("/", post(behind)).layer(idempotency.clone());
    let app = Router::new()
        .route("/", post(before))
        .layer(idempotency)
        .with_state(Behind(behind));
    let mut request = Request::post("/").header("x-behind", "b");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let request = request.body(Body::empty()).expect("a request");
    let answer = app.oneshot(request).await.expect("infallible");
    let body = to_bytes(answer.into_body(), 1024).await.expect("a body");
    String::from_utf8(body.to_vec()).expect("text")
}

#[tokio::test]
async fn each_of_two_handlers_of_one_request_knows_its_own_record() {
    assert_eq!(told(Some("a")).await, "before:@global:a then behind:@global:b");
}

#[tokio::test]
async fn one_that_runs_unprotected_stays_so_when_the_next_one_does_not() {
    assert_eq!(told(None).await, "nobody's then behind:@global:b");
}

#[idempotent(ttl = "1h", scope = global, header = "x-behind")]
async fn part(Path(number): Path<u32>) -> String {
    number.to_string()
}

/// Sends the request on to two URIs of one route, as a batch does.
async fn batch(State(behind): State<Behind>, mut request: Request) -> String {
    request.extensions_mut().remove::<OriginalUri>();
    let (parts, _) = request.into_parts();
    let mut statuses = Vec::new();
    for number in ["/parts/1", "/parts/2"] {
        let mut parts = parts.clone();
        parts.uri = Uri::from_static(number);
        let answer = behind.0.clone().oneshot(Request::from_parts(parts, Body::empty()));
        statuses.push(answer.await.unwrap_or_else(|never| match never {}).status());
    }
    format!("{statuses:?}")
}

#[tokio::test]
async fn parts_of_a_batch_are_told_apart_by_their_uris_once_the_original_one_is_removed() {
    let idempotency = Idempotency::new(MemoryBackend::new());
    let behind = Router::new().route("/parts/{number}", post(part)).layer(idempotency);
    let app = Router::new().route("/batch", post(batch)).with_state(Behind(behind));
    let request = Request::post("/batch").header("x-behind", "b").body(Body::empty());
    let answer = app.oneshot(request.expect("a request")).await.expect("infallible");
    let body = to_bytes(answer.into_body(), 1024).await.expect("a body");
    assert_eq!(String::from_utf8_lossy(&body), "[200, 422]");
}
