//! IDEM-2, IDEM-11, IDEM-12: answers of every kind and their replays.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::{CONNECTION, ETAG, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::post;
use futures_util::{StreamExt as _, stream};
use idem_axum::idempotent;
use idem_tests::{Answer, App, Call, Service, on_every_backend};
use reqwest::Method;
use tokio::sync::mpsc;

on_every_backend! {
    routes: super::routes();
    every_header_line_and_byte_is_replayed
    a_streamed_answer_that_ends_is_replayed_whole
    an_answer_over_the_limit_reaches_the_client_and_is_not_run_again
    a_stream_over_the_limit_reaches_the_client_and_is_not_run_again
    a_body_that_fails_half_way_is_not_replayed_as_if_it_were_whole
    a_body_that_panics_half_way_is_cut_short_and_not_run_again
    a_stream_reaches_the_client_chunk_by_chunk
    a_panic_is_a_500_and_can_be_retried
}

const LIMIT: usize = 1024 * 1024;

#[idempotent(ttl = "1m", scope = global)]
async fn odd_headers() -> impl IntoResponse {
    let mut headers = HeaderMap::new();
    headers.append(LOCATION, HeaderValue::from_static("/orders/1"));
    headers.append(ETAG, HeaderValue::from_static("\"1\""));
    headers.append("x-latin", HeaderValue::from_bytes(b"caf\xE9").expect("a header value"));
    headers.append(CONNECTION, HeaderValue::from_static("x-hop"));
    headers.append("x-hop", HeaderValue::from_static("1"));
    let cookies = AppendHeaders([(SET_COOKIE, "a=1"), (SET_COOKIE, "b=2")]);
    let every_byte: Vec<u8> = (0..=255).collect();
    (StatusCode::ACCEPTED, headers, cookies, every_byte)
}

#[idempotent(ttl = "1m", scope = global)]
async fn streamed(sizes: String) -> Body {
    let sizes: Vec<usize> = sizes.split(',').filter_map(|size| size.parse().ok()).collect();
    let chunks = sizes
        .into_iter()
        .map(|size| Ok::<_, Infallible>(Bytes::from(vec![b'x'; size])));
    Body::from_stream(stream::iter(chunks))
}

#[idempotent(ttl = "1m", scope = global)]
async fn sized(size: String) -> Result<Vec<u8>, StatusCode> {
    Ok(vec![b'x'; size.parse().map_err(|_| StatusCode::BAD_REQUEST)?])
}

#[idempotent(ttl = "1m", scope = global)]
async fn failing() -> Body {
    let chunks = [
        Ok(Bytes::from_static(b"half")),
        Err(std::io::Error::other("on purpose")),
    ];
    Body::from_stream(stream::iter(chunks))
}

#[idempotent(ttl = "1m", scope = global)]
async fn panicking_body(later: String) -> Body {
    let later = !later.is_empty();
    let chunks = stream::unfold(0, move |sent| async move {
        if later {
            tokio::task::yield_now().await;
        }
        assert_eq!(sent, 0, "in a body, on purpose");
        Some((Ok::<_, Infallible>("half"), sent + 1))
    });
    Body::from_stream(chunks)
}

type Chunks = Arc<tokio::sync::Mutex<mpsc::Receiver<Bytes>>>;

#[idempotent(ttl = "1m", scope = global)]
async fn fed(axum::Extension(chunks): axum::Extension<Chunks>) -> Body {
    let chunks = stream::unfold(chunks, |chunks| async {
        let chunk = chunks.lock().await.recv().await?;
        Some((Ok::<_, Infallible>(chunk), chunks))
    });
    Body::from_stream(chunks)
}

#[idempotent(ttl = "1m", scope = global)]
async fn panicking() -> Response {
    panic!("in a handler, on purpose")
}

fn routes() -> Router<App> {
    Router::new()
        .route("/odd-headers", post(odd_headers))
        .route("/streamed", post(streamed))
        .route("/sized", post(sized))
        .route("/failing", post(failing))
        .route("/panicking", post(panicking))
        .route("/panicking-body", post(panicking_body))
        .route("/panicking-body/later", post(panicking_body))
}

fn call(service: &Service, path: &str, body: &str) -> Call {
    service.client.call(Method::POST, path).key("k").body(body.to_owned())
}

async fn every_header_line_and_byte_is_replayed(service: Service) {
    let first = call(&service, "/odd-headers", "").send().await;
    let replay = call(&service, "/odd-headers", "").send().await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    let cookies: Vec<_> = replay.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(replay.headers["x-latin"].as_bytes(), b"caf\xE9");
    assert_eq!(
        replay.headers.get("x-hop"),
        None,
        "what is meant for one hop is not the answer's"
    );
    let mut as_answer = first.clone();
    as_answer.headers.remove("x-hop");
    as_answer.headers.remove("connection");
    replay.assert_replays(&as_answer);
}

async fn a_streamed_answer_that_ends_is_replayed_whole(service: Service) {
    let halves = format!("{},1,{}", LIMIT / 2, LIMIT / 2 - 1);
    let first = call(&service, "/streamed", &halves).send().await;
    assert_eq!(first.body.len(), LIMIT);
    let replay = call(&service, "/streamed", &halves).send().await;
    assert!(
        replay.is_replay(),
        "the end of the first one was seen, so a retry finds it"
    );
    assert_eq!((replay.status, replay.body), (first.status, first.body));
}

async fn assert_not_stored(service: &Service, path: &str, body: &str, first: &Answer) {
    assert_eq!(first.status, StatusCode::OK);
    service.idempotency.drain().await;
    for _ in 0..2 {
        let retry = call(service, path, body).send().await;
        assert_eq!(retry.status, StatusCode::CONFLICT);
        assert_eq!(retry.problem(), "response-not-stored");
    }
}

async fn an_answer_over_the_limit_reaches_the_client_and_is_not_run_again(service: Service) {
    let size = (LIMIT + 1).to_string();
    let first = call(&service, "/sized", &size).send().await;
    assert_eq!(first.body.len(), LIMIT + 1);
    assert!(first.says_not_stored(), "its length was known before its head was sent");
    assert_not_stored(&service, "/sized", &size, &first).await;
}

async fn a_stream_over_the_limit_reaches_the_client_and_is_not_run_again(service: Service) {
    let sizes = format!("{LIMIT},1,{LIMIT}");
    let first = call(&service, "/streamed", &sizes).send().await;
    assert_eq!(first.body.len(), 2 * LIMIT + 1);
    assert!(first.says_not_stored(), "all of it was there at once");
    assert_not_stored(&service, "/streamed", &sizes, &first).await;
}

async fn a_body_that_fails_half_way_is_not_replayed_as_if_it_were_whole(service: Service) {
    assert!(
        call(&service, "/failing", "").try_send().await.is_err(),
        "the client sees that it was cut short"
    );
    service.idempotency.drain().await;
    assert_eq!(
        call(&service, "/failing", "").send().await.problem(),
        "response-not-stored"
    );
}

async fn a_body_that_panics_half_way_is_cut_short_and_not_run_again(service: Service) {
    for (path, when) in [("/panicking-body", ""), ("/panicking-body/later", "later")] {
        let cut = call(&service, path, when).try_send().await;
        assert!(cut.is_err(), "the client must not take it for whole: {cut:?}");
        service.idempotency.drain().await;
        // The handler itself had come to its end.
        assert_eq!(call(&service, path, when).send().await.problem(), "response-not-stored");
    }
}

async fn a_stream_reaches_the_client_chunk_by_chunk(service: Service) {
    let (feed, chunks) = mpsc::channel(1);
    let chunks: Chunks = Arc::new(tokio::sync::Mutex::new(chunks));
    let more = Router::new().route("/fed", post(fed)).layer(axum::Extension(chunks));
    let service = if service.redis.is_some() {
        Service::redis(more).await
    } else {
        Service::memory(more).await
    };
    let mut first = call(&service, "/fed", "").stream().await.bytes_stream();
    let mut received = Vec::new();
    for chunk in [b"one".as_slice(), b"two", b"three"] {
        feed.send(Bytes::from_static(chunk)).await.expect("the handler listens");
        // The next chunk is not sent before this one has arrived.
        received.extend_from_slice(&first.next().await.expect("a chunk").expect("no failure"));
        assert_eq!(call(&service, "/fed", "").send().await.problem(), "in-flight");
    }
    drop(feed);
    assert!(first.next().await.is_none());
    let replay = call(&service, "/fed", "").send().await;
    assert!(replay.is_replay());
    assert_eq!(replay.body, received);
}

async fn a_panic_is_a_500_and_can_be_retried(service: Service) {
    for _ in 0..2 {
        let answer = call(&service, "/panicking", "").send().await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!answer.is_replay());
    }
}
