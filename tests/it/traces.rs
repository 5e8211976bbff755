//! What an operator finds in the log of one request.
//!
//! On one thread each, for what is logged is listened to on the thread of the test.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use axum::routing::post;
use idem_axum::testing::{BackendCall, Fault, ScriptedBackend};
use idem_axum::{BackendErrorKind, Idempotency, MemoryBackend, idempotent};
use idem_tests::Log;
use tokio::sync::Notify;
use tower::ServiceExt as _;
use tracing::{Instrument as _, Level};

/// Lets a handler go on.
#[derive(Clone, Default)]
struct Gate(Arc<Notify>);

#[idempotent(ttl = "1h", scope = "tenant", name = "orders", max_response = "64B")]
async fn talkative(State(gate): State<Gate>, Path(tenant): Path<String>, body: String) -> (StatusCode, String) {
    tracing::info!(length = tenant.len(), "the handler says: first");
    if body == "held" {
        gate.0.notified().await;
    }
    tracing::warn!("the handler says: second");
    let nested = async { tracing::error!("the handler says: third") };
    nested.instrument(tracing::info_span!("charging")).await;
    match body.as_str() {
        "panic" => panic!("in the handler, on purpose"),
        "large" => (StatusCode::OK, "x".repeat(65)),
        _ => (StatusCode::CREATED, body),
    }
}

fn app(idempotency: Idempotency) -> (Router, Gate) {
    let gate = Gate::default();
    let app = Router::new()
        .route("/{tenant}", post(talkative))
        .with_state(gate.clone())
        .layer(idempotency);
    (app, gate)
}

fn order(key: &str, body: &'static str) -> Request<Body> {
    Request::post("/acme")
        .header("idempotency-key", key)
        .body(body.into())
        .expect("a request")
}

async fn send(app: &Router, key: &str, body: &'static str) -> Response {
    app.clone().oneshot(order(key, body)).await.expect("infallible")
}

/// Every line that a handler wrote has what says which request it is about.
fn assert_all_say_whose_they_are(log: &Log, lines: usize, key: &str) {
    let said = log.lines_with("the handler says");
    assert_eq!(said.len(), lines, "{said:#?}");
    for line in said {
        for field in ["operation=\"orders\"", "scope=acme", &format!("idempotency_key={key}")] {
            assert!(line.contains(field), "no {field} in {line}");
        }
    }
}

#[tokio::test]
async fn every_line_that_a_handler_writes_has_its_key() {
    let (app, _) = app(Idempotency::new(MemoryBackend::new()));
    let (log, _guard) = Log::listen(Level::INFO);
    assert_eq!(send(&app, "key-1", "201").await.status(), StatusCode::CREATED);
    assert_all_say_whose_they_are(&log, 3, "key-1");
}

#[tokio::test]
async fn so_does_every_line_where_only_warnings_are_logged() {
    let (app, _) = app(Idempotency::new(MemoryBackend::new()));
    let (log, _guard) = Log::listen(Level::WARN);
    assert_eq!(send(&app, "key-1", "201").await.status(), StatusCode::CREATED);
    assert_all_say_whose_they_are(&log, 2, "key-1");
}

#[tokio::test(start_paused = true)]
async fn and_every_line_that_it_writes_after_its_client_has_left_within_the_span_of_the_caller() {
    let idempotency = Idempotency::new(MemoryBackend::new());
    let (app, gate) = app(idempotency.clone());
    let (log, _guard) = Log::listen(Level::INFO);
    let request = send(&app, "key-1", "held").instrument(tracing::info_span!("caller", request_id = 7));
    let left = tokio::time::timeout(Duration::from_secs(1), request).await;
    assert!(left.is_err(), "the handler is held");
    gate.0.notify_one();
    idempotency.drain().await;
    assert_all_say_whose_they_are(&log, 3, "key-1");
    for line in log.lines_with("the handler says") {
        assert!(line.contains("caller{request_id=7}"), "{line}");
    }
    let ends = log.lines_with("close");
    let end = ends
        .iter()
        .find(|line| line.contains("}:idempotent{") && !line.contains("charging"));
    assert!(end.is_some_and(|end| end.contains("outcome=\"executed\"")), "{ends:#?}");
}

#[tokio::test]
async fn the_end_of_each_span_says_what_its_request_came_to() {
    let (app, _) = app(Idempotency::new(MemoryBackend::new()));
    let (log, _guard) = Log::listen(Level::INFO);
    for (key, body) in [
        ("k", "201"),
        ("k", "201"),
        ("k", "other"),
        ("l", "large"),
        ("l", "large"),
    ] {
        send(&app, key, body).await;
    }
    let ends = log.lines_with("close time");
    let ends: Vec<_> = ends.iter().filter(|line| !line.contains("charging")).collect();
    let outcomes = ["executed", "replayed", "mismatch", "not_stored", "response_not_stored"];
    assert_eq!(ends.len(), outcomes.len(), "{ends:#?}");
    for (end, outcome) in ends.iter().zip(outcomes) {
        assert!(end.contains(&format!("outcome=\"{outcome}\"")), "{end}");
        let ran = ["executed", "not_stored"].contains(&outcome);
        assert_eq!(end.contains("attempt=1"), ran, "{end}");
    }
}

/// A retry is told from a new request by one line, which those who log no spans have as well.
#[tokio::test]
async fn a_duplicate_is_a_line_in_the_log_and_a_first_request_none() {
    let (app, _) = app(Idempotency::new(MemoryBackend::new()));
    let (log, _guard) = Log::listen(Level::INFO);
    send(&app, "k", "201").await;
    assert!(log.lines_with("an idempotent request has ended").is_empty());
    send(&app, "k", "201").await;
    let ends = log.lines_with("an idempotent request has ended");
    assert!(
        matches!(&ends[..], [end] if end.contains("key=orders:acme:k") && end.contains("replayed")),
        "{ends:#?}"
    );
}

#[tokio::test]
async fn an_answer_that_is_not_kept_is_a_warning_that_says_what_to_do() {
    let (app, _) = app(Idempotency::new(MemoryBackend::new()));
    let (log, _guard) = Log::listen(Level::WARN);
    assert_eq!(send(&app, "k", "large").await.status(), StatusCode::OK);
    let warnings = log.lines_with("raise `max_response`");
    assert!(
        matches!(&warnings[..], [warning] if warning.contains("WARN") && warning.contains("idempotency_key=k")),
        "{}",
        log.text()
    );
}

#[tokio::test(start_paused = true)]
async fn where_keys_are_hashed_no_line_has_one() {
    let backend = ScriptedBackend::new(MemoryBackend::new());
    let idempotency = Idempotency::new(backend.clone()).with_hashed_keys();
    let (app, _) = app(idempotency.clone());
    let (log, _guard) = Log::listen(Level::TRACE);
    let refused = Fault::Error(BackendErrorKind::Refused);
    let faults = [
        (BackendCall::Claim, refused, "refusing a request"),
        (BackendCall::Complete, Fault::Superseded, "the claim was superseded"),
        (BackendCall::Complete, refused, "could not be recorded yet"),
    ];
    for (number, (call, fault, _)) in faults.iter().enumerate() {
        backend.on_next(*call, *fault);
        send(&app, &format!("key-1-{number}"), "201").await;
    }
    for body in ["panic", "201", "201", "other"] {
        send(&app, "key-1", body).await;
    }
    send(&app, "key-1-large", "large").await;
    idempotency.drain().await;
    for (_, _, said) in faults {
        assert!(
            log.lines_with(said).iter().any(|line| line.contains("key=orders:")),
            "{said}"
        );
    }
    assert!(!log.lines_with("the handler panicked").is_empty());
    let text = log.text();
    assert!(!text.contains("key-1") && !text.contains("acme"), "{text}");
    // printf %s key-1 | sha256sum, and so for acme
    let hashes = ["idempotency_key=be2974546978e373", "scope=822b33ad87c148a0"];
    let said = log.lines_with("the handler says");
    let of_key_1 = said.iter().filter(|line| hashes.iter().all(|hash| line.contains(hash)));
    assert_eq!(
        of_key_1.count(),
        6,
        "three of the panic, three of the answer: {said:#?}"
    );
}
