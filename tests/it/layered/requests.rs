//! Which requests are guarded, and what the others go through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::any;
use idem_axum::{Compared, IdempotencyLayer, Policy, Scoped};
use idem_tests::Service;
use reqwest::Method;
use tower::ServiceBuilder;
use tower_http::cors::CorsLayer;

use super::{idempotency, layer, serve, unscoped};

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
async fn a_get_that_switches_protocols_passes_and_no_header_switches_the_layer_off() {
    let (service, runs) = counting(|layer| layer.when(|_| true)).await;
    let call = |method, upgrade: &[u8]| {
        let call = service.client.call(method, "/x").key("k");
        call.header("connection", b"upgrade").header("upgrade", upgrade).send()
    };
    for _ in 0..2 {
        assert!(!call(Method::GET, b"websocket").await.is_replay());
    }
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    // As curl sends it with `--http2`.
    assert!(!call(Method::POST, b"h2c").await.is_replay());
    assert!(call(Method::POST, b"h2c").await.is_replay());
    assert_eq!(runs.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn the_application_chooses_by_the_path_that_the_client_asked_for() {
    let idempotency = idempotency();
    let layer = layer(&idempotency).when(|request| request.uri.path().starts_with("/things"));
    let inner = Router::new().route("/x", any(async || "done")).layer(layer);
    let service = serve(&idempotency, Router::new().nest("/things", inner)).await;
    let call = || service.client.call(Method::POST, "/things/x").key("k");
    assert!(!call().send().await.is_replay());
    assert!(call().send().await.is_replay());
}

#[tokio::test]
async fn requests_to_two_paths_are_told_apart_also_where_no_body_is_compared() {
    let policy = Policy::new().with_fingerprint(Compared::Nothing);
    let (service, runs) = counting(|layer| layer.with_name("things").with_policy(policy)).await;
    let call = |path: &str, body: &'static str| service.client.call(Method::POST, path).key("k").body(body);
    assert!(!call("/x", "one").send().await.is_replay());
    assert!(call("/x", "other").send().await.is_replay());
    assert_eq!(call("/y", "one").send().await.problem(), "key-reused");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_request_that_needs_no_key_and_has_none_needs_no_scope_either() {
    let idempotency = idempotency();
    let policy = Policy::new().with_required(false);
    let layer = unscoped(&idempotency).with_policy(policy).scope(|_| None::<String>);
    let routes = Router::new().route("/x", any(async || "done")).layer(layer);
    let service = serve(&idempotency, routes).await;
    assert_eq!(
        service.client.call(Method::POST, "/x").send().await.status,
        StatusCode::OK
    );
    let with_key = service.client.call(Method::POST, "/x").key("k").send().await;
    assert_eq!(with_key.problem(), "not-configured");
}

/// The usual stacks compile, with layers that need a body of axum's, or one that has a default.
#[tokio::test]
async fn the_layer_fits_between_the_usual_ones() {
    async fn pass(request: Request, next: Next) -> Response {
        next.run(request).await
    }
    let idempotency = idempotency();
    let stack = ServiceBuilder::new()
        .layer(CorsLayer::permissive())
        .layer(layer(&idempotency))
        .layer(from_fn(pass));
    let routes = Router::new().route("/x", any(async || "done")).layer(stack);
    let service = serve(&idempotency, routes).await;
    let call = || service.client.call(Method::POST, "/x").key("k");
    assert!(!call().send().await.is_replay());
    assert!(call().send().await.is_replay());
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
