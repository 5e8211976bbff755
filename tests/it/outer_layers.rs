//! `docs/layers.md`: layers that are safe around annotated handlers. They see a replay as they saw the first answer. Those
//! that are not safe are in `late_layers`.

use std::convert::Infallible;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{CONTENT_ENCODING, ORIGIN, VARY};
use axum::http::{HeaderName, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder};
use futures_util::stream;
use idem_axum::{Idempotency, MemoryBackend, idempotent};
use idem_tests::{Answer, App, Call, Order, Service, in_time};
use reqwest::Method;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::{Any, CorsLayer};
use tower_http::decompression::RequestDecompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::timeout::TimeoutLayer;

#[idempotent(ttl = "1m", scope = global)]
async fn text(times: String) -> Result<String, StatusCode> {
    let times = times.parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok("compressible ".repeat(times))
}

#[idempotent(ttl = "1m", scope = global)]
async fn streamed() -> Body {
    let pieces = stream::unfold(0, |sent| async move {
        tokio::task::yield_now().await;
        (sent < 2).then(|| (Ok::<_, Infallible>(Bytes::from_static(b"short")), sent + 1))
    });
    Body::from_stream(pieces)
}

#[idempotent(ttl = "1m", scope = global)]
async fn encoded() -> impl IntoResponse {
    ([(CONTENT_ENCODING, "br")], "not for the layer".repeat(10))
}

#[idempotent(ttl = "1m", scope = global)]
async fn panicking() -> StatusCode {
    panic!("in a handler, on purpose")
}

fn routes() -> Router<App> {
    Router::new()
        .route("/text", post(text))
        .route("/streamed", post(streamed))
        .route("/encoded", post(encoded))
        .route("/panicking", post(panicking))
}

async fn around(wrap: impl FnOnce(Router) -> Router) -> Service {
    Service::wrapped(Idempotency::new(MemoryBackend::new()), routes(), wrap).await
}

fn call(service: &Service, path: &str, body: &str) -> Call {
    let call = service.client.call(Method::POST, path);
    call.key(&format!("{path} {body}")).body(body.to_owned())
}

fn unzipped(mut answer: Answer) -> Answer {
    let mut plain = Vec::new();
    let mut zipped = GzDecoder::new(&answer.body[..]);
    zipped.read_to_end(&mut plain).expect("it is whole");
    answer.body = plain.into();
    answer
}

#[tokio::test]
async fn a_compressed_answer_is_replayed_compressed() {
    let service = around(|router| router.layer(CompressionLayer::new())).await;
    // One is below the size from which the layer compresses what tells its size, and one does not tell it.
    for (path, body, encoding) in [
        ("/text", "100", Some("gzip")),
        ("/text", "1", None),
        ("/streamed", "", Some("gzip")),
        ("/encoded", "", Some("br")),
    ] {
        let call = || call(&service, path, body).header("accept-encoding", b"gzip");
        let first = call().send().await;
        let sent = first.headers.get(CONTENT_ENCODING);
        assert_eq!(sent.and_then(|sent| sent.to_str().ok()), encoding, "{path} {body}");
        let replay = call().send().await;
        // The layer compresses a stream piece by piece, so its bytes say how many there were.
        let plain = [first, replay].map(|answer| match encoding {
            Some("gzip") => unzipped(answer),
            _ => answer,
        });
        plain[1].assert_replays(&plain[0]);
    }
    // What is stored is the handler's answer, not what a layer made of it for one client.
    let plain = call(&service, "/text", "100").send().await;
    assert!(plain.is_replay());
    assert_eq!(plain.body, "compressible ".repeat(100));
    assert_eq!(plain.headers.get(CONTENT_ENCODING), None);
}

#[tokio::test]
async fn a_replay_and_a_problem_are_as_readable_across_origins_as_the_first_answer() {
    let replayed = HeaderName::from_static("idempotent-replayed");
    let cors = CorsLayer::new().allow_origin(Any).expose_headers([replayed]);
    let service = around(|router| router.layer(cors)).await;
    let call = || call(&service, "/text", "1").header(ORIGIN.as_str(), b"https://example.com");
    let first = call().send().await;
    assert_eq!(first.headers["access-control-allow-origin"], "*");
    assert_eq!(first.headers["access-control-expose-headers"], "idempotent-replayed");
    assert!(first.headers.contains_key(VARY));
    call().send().await.assert_replays(&first);
    let reused = call().body("2").send().await;
    assert_eq!(reused.problem(), "key-reused");
    assert_eq!(reused.headers["access-control-allow-origin"], "*");
}

#[tokio::test]
async fn a_replay_has_the_id_of_its_own_request() {
    let id = HeaderName::from_static("x-request-id");
    let service = around(|router| {
        router
            .layer(PropagateRequestIdLayer::new(id.clone()))
            .layer(SetRequestIdLayer::new(id.clone(), MakeRequestUuid))
    })
    .await;
    let mut first = call(&service, "/text", "1").send().await;
    let mut replay = call(&service, "/text", "1").send().await;
    let ids = [&mut first, &mut replay].map(|answer| answer.headers.remove(&id).expect("an id"));
    assert_ne!(ids[0], ids[1]);
    replay.assert_replays(&first);
}

#[tokio::test]
async fn a_body_over_an_outer_limit_is_refused_and_claims_nothing() {
    // With its length announced the layer refuses it by itself, and without, while it is read.
    let service = around(|router| router.layer(RequestBodyLimitLayer::new(1_000))).await;
    let send = |len: usize| call(&service, "/text", "").body(vec![b'0'; len]).send();
    let stream = |len: usize| {
        let pieces = stream::iter((0..len).map(|_| Ok::<_, Infallible>(Bytes::from_static(b"0"))));
        call(&service, "/text", "")
            .body(reqwest::Body::wrap_stream(pieces))
            .send()
    };
    assert_eq!(send(1_001).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(stream(1_001).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let first = stream(1_000).await;
    assert_eq!(first.status, StatusCode::OK);
    send(1_000).await.assert_replays(&first);
}

#[tokio::test]
async fn the_limit_that_a_route_sets_holds() {
    let service = around(|router| router.layer(DefaultBodyLimit::max(10))).await;
    let send = |len: usize| call(&service, "/text", "").body(vec![b'0'; len]).send();
    assert_eq!(send(11).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(send(10).await.status, StatusCode::OK);
}

/// A panic is answered before the layer could see it, and its key is free again.
#[tokio::test]
async fn a_panic_is_a_500_also_under_a_layer_that_catches_panics() {
    let service = around(|router| router.layer(CatchPanicLayer::new())).await;
    for _ in 0..2 {
        let answer = call(&service, "/panicking", "").send().await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert!(!answer.is_replay());
    }
}

/// IDEM-5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_that_fires_does_not_stop_the_handler() {
    in_time(async {
        let idempotency = Idempotency::new(MemoryBackend::new());
        let timeout = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_millis(50));
        let hasty = Service::wrapped(idempotency.clone(), Router::new(), |router| router.layer(timeout)).await;
        let patient = Service::wrapped(idempotency.clone(), Router::new(), |router| router).await;
        let order = Order::new("o").held();

        let timed_out = hasty.client.order("k", &order).send().await;
        assert_eq!(timed_out.status, StatusCode::GATEWAY_TIMEOUT);
        hasty.app.wait_until_started(1).await;
        let meanwhile = patient.client.order("k", &order).send().await;
        assert_eq!(meanwhile.problem(), "in-flight");

        hasty.app.open_gate();
        idempotency.drain().await;
        let retry = patient.client.order("k", &order).send().await;
        assert!(retry.is_replay());
        assert_eq!(retry.status, StatusCode::CREATED);
        assert_eq!(retry.json()["execution"], 1);
        assert_eq!(patient.app.executions("o"), 0);
    })
    .await;
}

#[tokio::test]
async fn a_compressed_request_and_the_same_one_in_plain_are_equal_where_a_layer_decompresses() {
    let service = around(|router| router.layer(RequestDecompressionLayer::new())).await;
    let mut zipped = Vec::new();
    GzEncoder::new(&b"3"[..], Compression::default())
        .read_to_end(&mut zipped)
        .expect("it is in memory");
    let first = call(&service, "/text", "3")
        .body(zipped)
        .header(CONTENT_ENCODING.as_str(), b"gzip")
        .send()
        .await;
    assert_eq!(first.body, "compressible ".repeat(3));
    call(&service, "/text", "3").send().await.assert_replays(&first);
}

/// Refuses everybody while it is shut, as a layer that authenticates refuses somebody whose rights have been taken away.
async fn refuse(State(is_shut): State<Arc<AtomicBool>>, request: Request, next: Next) -> Response {
    if is_shut.load(Ordering::SeqCst) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    next.run(request).await
}

#[tokio::test]
async fn what_a_layer_refuses_claims_nothing_and_is_not_replayed_wherever_the_idempotency_layer_is() {
    let place = |is_outermost: bool, idempotency: Idempotency, auth: Arc<AtomicBool>| {
        let router: Router = Router::new().route("/text", post(text));
        let auth = from_fn_with_state(auth, refuse);
        if is_outermost {
            router.layer(auth).layer(idempotency)
        } else {
            router.layer(idempotency).layer(auth)
        }
    };
    for is_outermost in [false, true] {
        let idempotency = Idempotency::new(MemoryBackend::new());
        let is_shut = Arc::new(AtomicBool::new(true));
        let placed = place(is_outermost, idempotency.clone(), is_shut.clone());
        let service = Service::wrapped(idempotency, Router::new(), |_| placed).await;
        let send = || call(&service, "/text", "1").send();
        assert_eq!(send().await.status, StatusCode::UNAUTHORIZED);
        is_shut.store(false, Ordering::SeqCst);
        let first = send().await;
        assert_eq!(first.status, StatusCode::OK);
        is_shut.store(true, Ordering::SeqCst);
        assert_eq!(send().await.status, StatusCode::UNAUTHORIZED);
        is_shut.store(false, Ordering::SeqCst);
        send().await.assert_replays(&first);
    }
}
