//! What handlers inside of the layer know, and annotated ones among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use idem_axum::{Execution, Verdict, idempotent};
use idem_tests::{App, Log};
use reqwest::Method;

use super::{idempotency, layer, serve};
use crate::late_layers::{Gate, hang_up};

type Runs = Arc<AtomicU32>;

#[tokio::test]
async fn a_handler_inside_knows_its_execution() {
    let idempotency = idempotency();
    let handler = async |execution: Execution| {
        let record = execution.record_key().unwrap_or("none").to_owned();
        format!(
            "{record} {} {}",
            execution.attempt(),
            execution.downstream_key("charge")
        )
    };
    let routes = Router::new()
        .route("/x/{id}", post(handler).get(handler))
        .layer(layer(&idempotency));
    let service = serve(&idempotency, routes).await;
    let guarded = service.client.call(Method::POST, "/x/1").key("k").send().await;
    let text = String::from_utf8(guarded.body.to_vec()).expect("text");
    assert!(text.starts_with("layer%20POST%20/x/%7Bid%7D:@global:k 1 "), "{text}");
    let passing = service.client.call(Method::GET, "/x/1").key("k").send().await;
    assert!(passing.body.starts_with(b"none 1 "), "{:?}", passing.body);
}

#[idempotent(ttl = "1h", scope = global)]
async fn annotated(State(_): State<App>, Extension(runs): Extension<Runs>, Extension(gate): Extension<Gate>) -> String {
    gate.pass().await;
    runs.fetch_add(1, Ordering::SeqCst).to_string()
}

#[tokio::test]
async fn an_annotated_handler_inside_works_and_is_warned_of_once() {
    let (idempotency, runs, gate) = (idempotency(), Runs::default(), Gate::default());
    let routes = Router::new()
        .route("/x", post(annotated))
        .layer(Extension(runs.clone()))
        .layer(Extension(gate.clone()))
        .layer(idempotency.clone())
        .layer(layer(&idempotency));
    let service = serve(&idempotency, routes).await;
    let (log, _guard) = Log::listen(tracing::Level::WARN);
    // Each on a connection of its own, for which axum makes the layers anew.
    let call = |key: &str| {
        let client = idem_tests::Client::new(service.client.base());
        client.call(Method::POST, "/x").key(key)
    };
    let first = call("k").send().await;
    assert_eq!(first.status, StatusCode::OK);
    call("k").send().await.assert_replays(&first);
    hang_up(&service, &gate, call("left")).await;
    assert!(call("left").send().await.is_replay());
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    let warnings = log.lines_with("each of its requests has two records");
    assert_eq!(warnings.len(), 1, "{}", log.text());
}

#[idempotent(ttl = "1h", scope = global)]
async fn judging(Extension(runs): Extension<Runs>, Extension(verdict): Extension<Verdict>) -> (Verdict, String) {
    (verdict, runs.fetch_add(1, Ordering::SeqCst).to_string())
}

#[tokio::test]
async fn the_verdict_of_an_annotated_handler_reaches_the_layers_around_it() {
    for verdict in [Verdict::Keep, Verdict::Release, Verdict::Unknown] {
        let (idempotency, runs) = (idempotency(), Runs::default());
        let routes = Router::new()
            .route("/x", post(judging))
            .layer(Extension(runs.clone()))
            .layer(Extension(verdict))
            .layer(idempotency.clone())
            .layer(layer(&idempotency).with_name("between"))
            .layer(layer(&idempotency));
        let service = serve(&idempotency, routes).await;
        let call = || service.client.call(Method::POST, "/x").key("k");
        assert_eq!(call().send().await.status, StatusCode::OK, "{verdict:?}");
        let retry = call().send().await;
        let (status, is_replay, ran) = match verdict {
            Verdict::Release => (StatusCode::OK, false, 2),
            Verdict::Unknown => (StatusCode::CONFLICT, false, 1),
            _ => (StatusCode::OK, true, 1),
        };
        assert_eq!((retry.status, retry.is_replay()), (status, is_replay), "{verdict:?}");
        assert_eq!(runs.load(Ordering::SeqCst), ran, "{verdict:?}");
    }
}

/// A layer of somebody else's that asks for the execution, in vain.
async fn ask(_: Execution, request: Request, next: Next) -> Response {
    next.run(request).await
}

#[tokio::test]
async fn a_retry_has_the_downstream_key_of_its_first_attempt_whoever_has_asked_for_an_execution_before() {
    let idempotency = idempotency();
    let failures = Arc::new(AtomicU32::new(1));
    let handler = move |execution: Execution| async move {
        let failed = failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        let status = if failed.is_ok() {
            StatusCode::BAD_GATEWAY
        } else {
            StatusCode::OK
        };
        let record = execution.record_key().unwrap_or("none").to_owned();
        (status, format!("{record} {}", execution.downstream_key("charge")))
    };
    let routes = Router::new()
        .route("/x", post(handler))
        .layer(from_fn(ask))
        .layer(layer(&idempotency))
        .layer(from_fn(ask));
    let service = serve(&idempotency, routes).await;
    let call = || service.client.call(Method::POST, "/x").key("k");
    let (first, second) = (call().send().await, call().send().await);
    assert_eq!((first.status, second.status), (StatusCode::BAD_GATEWAY, StatusCode::OK));
    assert!(
        first.body.starts_with(b"layer%20POST%20/x:@global:k "),
        "{:?}",
        first.body
    );
    assert_eq!(first.body, second.body);
}

#[tokio::test]
async fn a_layer_inside_of_one_with_the_same_name_is_refused_and_one_with_another_name_works() {
    for (name, status) in [
        ("orders", StatusCode::INTERNAL_SERVER_ERROR),
        ("others", StatusCode::OK),
    ] {
        let (idempotency, runs) = (idempotency(), Runs::default());
        let counted = runs.clone();
        let handler = move || async move { counted.fetch_add(1, Ordering::SeqCst).to_string() };
        let routes = Router::new()
            .route("/x", post(handler))
            .layer(layer(&idempotency).with_name("orders"))
            .layer(layer(&idempotency).with_name("between"))
            .layer(layer(&idempotency).with_name(name));
        let service = serve(&idempotency, routes).await;
        let call = || service.client.call(Method::POST, "/x").key("k");
        assert_eq!(call().send().await.status, status, "{name}");
        assert_eq!(call().send().await.is_replay(), status == StatusCode::OK, "{name}");
        assert_eq!(
            runs.load(Ordering::SeqCst),
            u32::from(status == StatusCode::OK),
            "{name}"
        );
    }
}

#[idempotent(ttl = "1h", scope = global, name = "orders")]
async fn named(Extension(runs): Extension<Runs>) -> String {
    runs.fetch_add(1, Ordering::SeqCst).to_string()
}

#[tokio::test]
async fn a_handler_with_the_name_and_scope_of_its_layer_is_refused_and_does_not_wait_for_itself() {
    let (idempotency, runs) = (idempotency(), Runs::default());
    let routes = Router::new()
        .route("/x", post(named))
        .layer(Extension(runs.clone()))
        .layer(idempotency.clone())
        .layer(layer(&idempotency).with_name("orders"));
    let service = serve(&idempotency, routes).await;
    let refused = service.client.call(Method::POST, "/x").key("k").send().await;
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}
