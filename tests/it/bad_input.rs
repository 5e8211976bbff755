//! Requests that are not as they should be, and services that are not set up.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::routing::post;
use axum::{Json, Router};
use idem_axum::{Idempotency, IdempotencyProblem, MemoryBackend, idempotent};
use idem_tests::{App, Client, Log, Order, Service, on_every_backend};
use reqwest::Method;
use serde::{Deserialize, Serialize};

on_every_backend! {
    a_request_without_a_key_is_told_which_header_it_needs
    malformed_keys_are_refused_and_claim_nothing
    a_quoted_key_is_the_same_key
    an_optional_key_may_be_left_out_but_not_be_malformed
    a_body_over_the_limit_is_refused_and_claims_nothing
}

async fn a_request_without_a_key_is_told_which_header_it_needs(service: Service) {
    let answer = service
        .client
        .call(Method::POST, "/orders")
        .json(&Order::new("o"))
        .send()
        .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.problem(), "key-missing");
    assert!(
        answer.json()["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("`idempotency-key`"))
    );
    assert_eq!(service.app.executions("o"), 0);
}

async fn malformed_keys_are_refused_and_claim_nothing(service: Service) {
    let long = "k".repeat(256);
    let malformed: &[&[u8]] = &[
        b"",
        b" ",
        b"\"\"",
        b"\"k",
        b"a,b",
        b"\xC3\xA9",
        b"\xFF",
        long.as_bytes(),
    ];
    for key in malformed {
        let call = service.client.call(Method::POST, "/orders").json(&Order::new("o"));
        let answer = call.header("idempotency-key", key).send().await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", key.escape_ascii());
        assert_eq!(answer.problem(), "key-invalid");
    }
    let twice = service.client.order("k", &Order::new("o")).key("k").send().await;
    assert_eq!(twice.problem(), "key-invalid");
    assert_eq!(service.app.executions("o"), 0);
}

async fn a_quoted_key_is_the_same_key(service: Service) {
    let first = service.client.order("k-1", &Order::new("o")).send().await;
    service
        .client
        .order("\"k-1\"", &Order::new("o"))
        .send()
        .await
        .assert_replays(&first);
    service
        .client
        .order("\"k-1\";a=1", &Order::new("o"))
        .send()
        .await
        .assert_replays(&first);
}

async fn an_optional_key_may_be_left_out_but_not_be_malformed(service: Service) {
    let call = || {
        service
            .client
            .call(Method::POST, "/orders/optional")
            .json(&Order::new("o"))
    };
    for execution in 1..=2 {
        let unprotected = call().key("another header").send().await;
        assert_eq!(unprotected.json()["execution"], execution);
    }
    let first = call().header("x-request-key", b"k").send().await;
    assert_eq!(first.json()["execution"], 3);
    call().header("X-Request-Key", b"k").send().await.assert_replays(&first);
    assert_eq!(
        call().header("x-request-key", b"").send().await.problem(),
        "key-invalid"
    );
}

async fn a_body_over_the_limit_is_refused_and_claims_nothing(service: Service) {
    let large = Order::new(&"x".repeat(2 * 1024 * 1024));
    let refused = service.client.order("k", &large).send().await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    let by_axum = service.client.order_at("/orders/naive", "k", &large).send().await;
    assert_eq!(refused.without_marker(), by_axum.without_marker());
    let accepted = service.client.order("k", &Order::new("o")).send().await;
    assert_eq!(accepted.status, StatusCode::CREATED);
    assert!(!accepted.is_replay());
}

#[idempotent(ttl = "1m", scope = global)]
async fn unlayered() -> &'static str {
    "never"
}

#[idempotent(ttl = "1m", scope = body.trim())]
async fn scoped_by_body(body: String) -> String {
    body
}

#[tokio::test]
async fn a_handler_without_its_layer_is_a_500_that_says_so() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let client = Client::new(&format!("http://{}", listener.local_addr().expect("it is bound")));
    let router: Router = Router::new().route("/", post(unlayered));
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let answer = client.call(Method::POST, "/").key("k").send().await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.problem(), "not-configured");
    serving.abort();
}

#[tokio::test]
async fn an_empty_scope_is_refused_and_never_shared() {
    let service = Service::memory(Router::<App>::new().route("/scoped", post(scoped_by_body))).await;
    let call = |scope: &'static str| service.client.call(Method::POST, "/scoped").key("k").body(scope);
    assert_eq!(call("a").send().await.status, StatusCode::OK);
    // Of what a client sends, length is the client's fault.
    let long = service
        .client
        .call(Method::POST, "/scoped")
        .key("k")
        .body("x".repeat(1025));
    assert_eq!(long.send().await.problem(), "key-invalid");
}

/// Made of what the client sent, as far as the handler has read it.
#[idempotent(ttl = "1m", scope = (caller, body.trim()))]
async fn scoped_by_both(caller: Caller, body: String) -> String {
    drop(caller);
    body
}

/// Whose name is in a header.
struct Caller(String);

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let name = parts.headers.get("x-caller").and_then(|name| name.to_str().ok());
        Ok(Self(name.unwrap_or_default().to_owned()))
    }
}

#[idempotent(ttl = "1m", scope = caller)]
async fn scoped_by_header(caller: Caller) -> String {
    caller.0
}

#[idempotent(ttl = "1m", scope = login.client_id, fingerprint = login)]
async fn scoped_by_field(Json(login): Json<Login>) -> String {
    login.client_id
}

#[derive(Serialize, Deserialize)]
struct Login {
    client_id: String,
}

#[tokio::test]
async fn an_empty_scope_from_the_body_is_the_clients_mistake_and_any_other_the_services() {
    let (log, _guard) = Log::listen(tracing::Level::ERROR);
    let routes = Router::<App>::new()
        .route("/scoped", post(scoped_by_body))
        .route("/both", post(scoped_by_both))
        .route("/field", post(scoped_by_field))
        .route("/header", post(scoped_by_header));
    let service = Service::memory(routes).await;
    let call = |path: &str, body: &'static str| service.client.call(Method::POST, path).key("k").body(body);
    for body in ["", " "] {
        let empty = call("/scoped", body).send().await;
        assert_eq!(empty.status, StatusCode::BAD_REQUEST, "{body:?}");
        assert_eq!(empty.problem(), "key-invalid");
        let detail = empty.json()["detail"].to_string();
        assert!(detail.contains("the scope is empty"), "{detail}");
    }
    let both = call("/both", " ").header("x-caller", b"c").send().await;
    assert_eq!(both.problem(), "key-invalid");
    let json = || service.client.call(Method::POST, "/field").key("k");
    let field = json()
        .json(&Login {
            client_id: String::new(),
        })
        .send()
        .await;
    assert_eq!(field.problem(), "key-invalid");
    let logged = log.lines_with("no usable record key");
    assert!(logged.is_empty(), "it is nothing for the operator: {logged:?}");

    // The last argument, which has nothing of the body.
    for body in ["", "some"] {
        let empty = call("/header", body).send().await;
        assert_eq!(empty.status, StatusCode::INTERNAL_SERVER_ERROR, "{body:?}");
        assert_eq!(empty.problem(), "not-configured");
    }
    assert!(!log.lines_with("no usable record key").is_empty());
}

#[tokio::test]
async fn problems_point_at_the_documentation_and_are_known_to_outer_layers() {
    use axum::body::Body;
    use axum::extract::Request;
    use tower::ServiceExt as _;

    let idempotency = Idempotency::new(MemoryBackend::new()).with_documentation("https://example.com/idempotency");
    let router: Router = Router::new().route("/", post(unlayered)).layer(idempotency);
    let response = router
        .oneshot(Request::post("/").body(Body::empty()).expect("a request"))
        .await
        .expect("infallible");
    assert_eq!(response.extensions().get(), Some(&IdempotencyProblem::KeyMissing));
    let link = response.headers().get("link").and_then(|link| link.to_str().ok());
    assert_eq!(
        link,
        Some("<https://example.com/idempotency#key-missing>; rel=\"describedby\"")
    );
    let body = axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .expect("in memory");
    let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["type"], "https://example.com/idempotency#key-missing");
}

#[idempotent(ttl = "1m", scope = global)]
async fn anything() -> StatusCode {
    StatusCode::CREATED
}

/// The operation of a fallback is what the client has called, and is stored with every record.
#[tokio::test]
async fn a_path_that_is_too_long_to_be_a_part_of_a_key_is_refused() {
    let service = Service::memory(Router::new().fallback(anything)).await;
    let send = async |len: usize| {
        let path = format!("/{}", "p".repeat(len));
        service.client.call(Method::POST, &path).key("k").send().await
    };
    let long = send(64_000).await;
    assert_eq!(long.status, StatusCode::BAD_REQUEST);
    assert_eq!(long.problem(), "key-invalid");
    assert_eq!(send(1_000).await.status, StatusCode::CREATED);
}
