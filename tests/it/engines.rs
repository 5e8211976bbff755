//! `engine = …`: a handler whose engine comes from an argument.

use axum::Router;
use axum::extract::{FromRef, Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use idem_axum::{Execution, Idempotency, MemoryBackend, idempotent};
use idem_tests::{Answer, Order, Service};
use reqwest::Method;

/// An engine for each kind of tenant.
#[derive(Clone)]
struct Engines {
    large: Idempotency,
    small: Idempotency,
}

impl Engines {
    fn new() -> Self {
        Self {
            large: Idempotency::new(MemoryBackend::new()),
            small: Idempotency::new(MemoryBackend::new()).with_strict_keys(),
        }
    }

    fn of(&self, tenant: &str) -> &Idempotency {
        if tenant == "large" { &self.large } else { &self.small }
    }
}

impl FromRef<Engines> for Idempotency {
    fn from_ref(engines: &Engines) -> Self {
        engines.large.clone()
    }
}

#[idempotent(ttl = "1m", scope = tenant, engine = engines.of(tenant))]
async fn by_tenant(
    State(engines): State<Engines>,
    Path(tenant): Path<String>,
    execution: Execution,
    body: String,
) -> (StatusCode, String) {
    drop((engines, tenant));
    (StatusCode::CREATED, format!("{body} {:?}", execution.record_key()))
}

#[idempotent(ttl = "1m", scope = global, engine = idempotency)]
async fn last(State(idempotency): State<Idempotency>) -> String {
    drop(idempotency);
    "last".into()
}

/// The routes outside the service's own layer.
async fn service(engines: &Engines) -> Service {
    let routes = Router::new()
        .route("/by-tenant/{tenant}", post(by_tenant))
        .route("/last", post(last))
        .with_state(engines.clone());
    let idempotency = Idempotency::new(MemoryBackend::new());
    Service::wrapped(idempotency, Router::new(), |router| router.merge(routes)).await
}

/// A request to the engine of this tenant.
async fn call(service: &Service, tenant: &str, key: &str) -> Answer {
    let call = service.client.call(Method::POST, &format!("/by-tenant/{tenant}"));
    call.key(key).body("a").send().await
}

#[tokio::test]
async fn without_a_layer_a_handler_is_replayed_by_the_engine_of_its_argument() {
    let service = service(&Engines::new()).await;
    let call = || call(&service, "large", "k");
    let first = call().await;
    assert_eq!(first.status, StatusCode::CREATED);
    assert_eq!(first.body, r#"a Some("POST%20/by-tenant/%7Btenant%7D:large:k")"#);
    call().await.assert_replays(&first);
    let call = || service.client.call(Method::POST, "/last").key("k").send();
    let first = call().await;
    assert_eq!(first.body, "last");
    call().await.assert_replays(&first);
}

/// The settings and the records are those of the engine that the expression gives for the request.
#[tokio::test]
async fn each_request_is_checked_by_the_engine_that_it_leads_to() {
    let service = service(&Engines::new()).await;
    let call = |tenant, key| call(&service, tenant, key);
    assert_eq!(call("large", "k").await.status, StatusCode::CREATED);
    assert_eq!(call("small", "k").await.problem(), "key-invalid");
    assert_eq!(call("small", "\"k\"").await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn the_engine_of_an_argument_is_used_below_a_layer_too() {
    let engines = Engines::new();
    let routes = Router::new()
        .route("/by-tenant/{tenant}", post(by_tenant))
        .with_state(engines);
    let strict = Idempotency::new(MemoryBackend::new()).with_strict_keys();
    let service = Service::wrapped(strict, routes, |router| router).await;
    let call = || call(&service, "large", "k");
    let first = call().await;
    assert_eq!(first.status, StatusCode::CREATED);
    call().await.assert_replays(&first);
    assert_eq!(
        service.client.order("k", &Order::new("o")).send().await.problem(),
        "key-invalid"
    );
}
