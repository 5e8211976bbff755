//! Which requests are guarded, and what the others go through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::any;
use idem_axum::{IdempotencyLayer, Policy, Scoped};
use idem_tests::Service;
use reqwest::Method;

use super::{idempotency, layer, serve};

/// A service that counts its runs, under `layer`.
async fn counting(
    layer: impl FnOnce(IdempotencyLayer<Scoped>) -> IdempotencyLayer<Scoped>,
) -> (Service, Arc<AtomicU32>) {
    let (idempotency, runs) = (idempotency(), Arc::new(AtomicU32::new(0)));
    let counted = runs.clone();
    let handler = move || async move { counted.fetch_add(1, Ordering::SeqCst).to_string() };
    let layer = layer(self::layer(&idempotency));
    let routes = Router::new()
        .route("/x", any(handler.clone()))
        .route("/y", any(handler))
        .layer(layer);
    (serve(&idempotency, routes).await, runs)
}

#[tokio::test]
async fn post_and_patch_are_guarded_and_other_methods_pass() {
    let (service, runs) = counting(|layer| layer).await;
    for (method, is_guarded) in [
        (Method::POST, true),
        (Method::PATCH, true),
        (Method::GET, false),
        (Method::PUT, false),
        (Method::DELETE, false),
    ] {
        let call = || service.client.call(method.clone(), "/x").key(method.as_str());
        runs.store(0, Ordering::SeqCst);
        let (first, second) = (call().send().await, call().send().await);
        assert_eq!(second.is_replay(), is_guarded, "{method}");
        assert!(!first.is_replay(), "{method}");
        assert_eq!(runs.load(Ordering::SeqCst), if is_guarded { 1 } else { 2 }, "{method}");
        let without_key = service.client.call(method.clone(), "/x").send().await;
        assert_eq!(without_key.status.is_success(), !is_guarded, "{method}");
    }
}

#[tokio::test]
async fn the_application_chooses_which_requests_are_guarded() {
    let (service, _runs) = counting(|layer| layer.when(|request| request.uri.path() == "/y")).await;
    let call = |path: &str| service.client.call(Method::PUT, path).key("k");
    for (path, is_guarded) in [("/x", false), ("/y", true)] {
        let _first = call(path).send().await;
        assert_eq!(call(path).send().await.is_replay(), is_guarded, "{path}");
    }
}

#[tokio::test]
async fn a_request_that_switches_protocols_passes() {
    let (service, runs) = counting(|layer| layer).await;
    for _ in 0..2 {
        let call = service.client.call(Method::POST, "/x").key("k");
        let answer = call
            .header("connection", b"upgrade")
            .header("upgrade", b"other/1")
            .send()
            .await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(!answer.is_replay());
    }
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn one_key_at_two_routes_is_two_operations_unless_they_share_a_name() {
    let (service, runs) = counting(|layer| layer).await;
    let call = |service: &Service, path: &str| service.client.call(Method::POST, path).key("k");
    for path in ["/x", "/y"] {
        assert!(!call(&service, path).send().await.is_replay());
    }
    assert_eq!(runs.load(Ordering::SeqCst), 2);

    let (named, runs) = counting(|layer| layer.with_name("things")).await;
    assert!(!call(&named, "/x").send().await.is_replay());
    assert_eq!(call(&named, "/y").send().await.problem(), "key-reused");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_client_error_is_released_unless_the_options_say_otherwise() {
    for (policy, is_kept) in [
        (Policy::new(), false),
        (Policy::new().with_store(idem_axum::StoredAnswers::Final), true),
    ] {
        let (idempotency, runs) = (idempotency(), Arc::new(AtomicU32::new(0)));
        let counted = runs.clone();
        let handler = move || async move {
            counted.fetch_add(1, Ordering::SeqCst);
            StatusCode::NOT_FOUND
        };
        let layer = layer(&idempotency).with_policy(policy);
        let service = serve(&idempotency, Router::new().route("/x", any(handler)).layer(layer)).await;
        for _ in 0..2 {
            let answer = service.client.call(Method::POST, "/x").key("k").send().await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND);
        }
        assert_eq!(runs.load(Ordering::SeqCst), if is_kept { 1 } else { 2 });
    }
}
