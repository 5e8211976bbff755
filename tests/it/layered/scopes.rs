//! Who owns the key space: what a layer outside has found out, and never by accident everybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::post;
use idem_tests::{Log, Service};
use reqwest::Method;

use super::{idempotency, serve, unscoped};

#[derive(Clone)]
struct CurrentUser {
    tenant: String,
}

/// Knows the callers that say who they are.
async fn authenticate(mut request: Request, next: Next) -> Response {
    if let Some(tenant) = request.headers().get("x-tenant") {
        let tenant = tenant.to_str().expect("it is text").to_owned();
        request.extensions_mut().insert(CurrentUser { tenant });
    }
    next.run(request).await
}

/// A service that counts its runs, with a scope by extension.
async fn counting() -> (Service, Arc<AtomicU32>) {
    let (idempotency, runs) = (idempotency(), Arc::new(AtomicU32::new(0)));
    let counted = runs.clone();
    let handler = move || async move { counted.fetch_add(1, Ordering::SeqCst).to_string() };
    let layer = unscoped(&idempotency).scope_extension(|user: &CurrentUser| user.tenant.clone());
    let routes = Router::new()
        .route("/x", post(handler))
        .layer(layer)
        .layer(from_fn(authenticate));
    (serve(&idempotency, routes).await, runs)
}

#[tokio::test]
async fn two_tenants_under_one_key_have_an_answer_each() {
    let (service, runs) = counting().await;
    let call = |tenant: &str| {
        service
            .client
            .call(Method::POST, "/x")
            .key("k")
            .header("x-tenant", tenant.as_bytes())
    };
    let (acme, globex) = (call("acme").send().await, call("globex").send().await);
    assert_eq!((&acme.body[..], &globex.body[..]), (&b"0"[..], &b"1"[..]));
    call("acme").send().await.assert_replays(&acme);
    call("globex").send().await.assert_replays(&globex);
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_request_without_a_scope_or_with_an_empty_one_is_a_500_and_runs_nothing() {
    let (service, runs) = counting().await;
    let (log, _guard) = Log::listen(tracing::Level::ERROR);
    let call = || service.client.call(Method::POST, "/x").key("k");
    for refused in [call().send().await, call().header("x-tenant", b"").send().await] {
        assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(refused.problem(), "not-configured");
    }
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    assert_eq!(log.lines_with("has no scope").len(), 1, "{}", log.text());
}

#[tokio::test]
async fn a_scope_is_taken_from_the_head_of_a_request() {
    let idempotency = idempotency();
    let by_host = unscoped(&idempotency).scope(|request| request.uri.path().split('/').nth(1).map(str::to_owned));
    let routes = Router::new().route("/{tenant}/x", post(async || "done")).layer(by_host);
    let service = serve(&idempotency, routes).await;
    let call = |path: &str| service.client.call(Method::POST, path).key("k");
    assert!(!call("/acme/x").send().await.is_replay());
    assert!(!call("/globex/x").send().await.is_replay());
    assert!(call("/acme/x").send().await.is_replay());
}
