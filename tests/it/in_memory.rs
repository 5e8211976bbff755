//! The memory backend behind a listener: it has a bound, and the log says once that it is not for a service.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::post;
use axum::{Extension, Router};
use idem_axum::{Idempotency, IdempotencyLayer, MemoryBackend, RedisBackend, idempotent};
use idem_tests::{App, Client, Log, RedisServer, Service, in_time};
use tower::ServiceExt as _;

const NOTICE: &str = "their records are in this process's memory";

#[idempotent(ttl = "1h", scope = global)]
async fn place() -> &'static str {
    "placed"
}

#[idempotent(ttl = "1h", scope = global, engine = idempotency)]
async fn by_argument(Extension(idempotency): Extension<Idempotency>) -> &'static str {
    "placed"
}

#[idempotent(ttl = "1h", scope = global, header = "X-Key")]
async fn by_header() -> &'static str {
    "placed"
}

#[idempotent(ttl = "1h", scope = global)]
async fn kilobytes(order: String) -> String {
    order.repeat(1_000)
}

/// As many requests as fit are served, and the others are told to come back. A retry needs no room.
#[tokio::test]
async fn when_memory_is_full_a_new_request_is_an_outage_and_a_retry_is_replayed() {
    in_time(async {
        let backend = MemoryBackend::new().with_max_bytes(8_000);
        let service = Service::start(
            backend.clone(),
            Router::new().route("/kilobytes", post(kilobytes)),
            None,
        )
        .await;
        let call = |key: &str| {
            let call = service.client.call(reqwest::Method::POST, "/kilobytes");
            call.key(key).body("abcd").send()
        };
        let first = call("k-1").await;
        assert_eq!((first.status, first.body.len()), (StatusCode::OK, 4_000));
        assert_eq!(call("k-2").await.status, StatusCode::OK);
        assert!(backend.bytes() > 8_000, "{} bytes", backend.bytes());

        let refused = call("k-3").await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.problem(), "backend-unavailable");
        assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
        service.idempotency.check().await.expect_err("there is no room");
        call("k-1").await.assert_replays(&first);

        let _raised = backend.with_max_bytes(16_000);
        service.idempotency.check().await.expect("there is room");
        assert_eq!(call("k-3").await.status, StatusCode::OK);
    })
    .await;
}

const PATHS: [&str; 4] = ["/attribute", "/argument", "/header", "/layer"];

/// A service whose routes are guarded in each of the forms.
async fn serve(idempotency: &Idempotency) -> Service {
    Service::wrapped(idempotency.clone(), forms(idempotency), |router| router).await
}

fn forms(idempotency: &Idempotency) -> Router<App> {
    let layer = IdempotencyLayer::new(idempotency.clone(), Duration::from_hours(1)).scope_global();
    let layered = Router::new().route("/layer", post(async || "placed")).layer(layer);
    Router::new()
        .route("/attribute", post(place))
        .route("/argument", post(by_argument))
        .route("/header", post(by_header))
        .layer(Extension(idempotency.clone()))
        .merge(layered)
}

/// A first request, its retry, and another one.
async fn call_three_times(client: &Client, path: &str) {
    for key in ["k-1", "k-1", "k-2"] {
        let call = client.call(reqwest::Method::POST, path).key(key);
        let answer = call.header("x-key", key.as_bytes()).send().await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn a_client_over_a_connection_is_noticed_once_in_each_form() {
    for path in PATHS {
        for connect in [Client::new, Client::http2] {
            let (log, _guard) = Log::listen(tracing::Level::WARN);
            let service = serve(&Idempotency::new(MemoryBackend::new())).await;
            let client = connect(service.client.base());
            let refused = client.call(reqwest::Method::POST, path).send().await;
            assert_eq!(refused.problem(), "key-missing");
            assert_eq!(log.lines_with(NOTICE), [""; 0], "nothing was claimed");
            call_three_times(&client, path).await;
            let lines = log.lines_with(NOTICE);
            assert_eq!(lines.len(), 1, "{path}: {}", log.text());
            assert!(lines[0].contains("WARN"), "{lines:?}");
        }
    }
}

#[tokio::test]
async fn forms_clones_and_settings_of_one_idempotency_share_the_notice() {
    let (log, _guard) = Log::listen(tracing::Level::WARN);
    let idempotency = Idempotency::new(MemoryBackend::new());
    let strict = serve(&idempotency.clone().with_deadline(Duration::from_secs(2))).await;
    let service = serve(&idempotency).await;
    for path in PATHS {
        call_three_times(&service.client, path).await;
        call_three_times(&strict.client, path).await;
    }
    assert_eq!(log.lines_with(NOTICE).len(), 1, "{}", log.text());
}

#[tokio::test]
async fn a_test_that_calls_the_router_itself_is_not_noticed() {
    let (log, _guard) = Log::listen(tracing::Level::WARN);
    let idempotency = Idempotency::new(MemoryBackend::new());
    let (router, _app) = idem_tests::router(&idempotency, forms(&idempotency));
    for path in PATHS {
        let request = Request::post(path).header("idempotency-key", "k").header("x-key", "k");
        let request = request.body(Body::empty()).expect("a request");
        let answer = router.clone().oneshot(request).await.expect("infallible");
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }
    assert_eq!(log.lines_with("WARN"), [""; 0]);
}

#[tokio::test]
async fn a_service_on_redis_is_not_noticed() {
    let (log, _guard) = Log::listen(tracing::Level::WARN);
    let server = RedisServer::start().await;
    let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
    let service = serve(&Idempotency::new(backend)).await;
    for path in PATHS {
        call_three_times(&service.client, path).await;
    }
    assert_eq!(log.lines_with(NOTICE), [""; 0]);
}
