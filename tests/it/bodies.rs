//! IDEM-20: what happens to a request's body before and beside the handler.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Multipart, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use idem_axum::idempotent;
use idem_tests::{App, Service, in_time, on_every_backend};
use reqwest::Method;
use serde_json::Value;
use tokio::sync::watch;

use crate::raw::Raw;

on_every_backend! {
    routes: super::routes();
    authentication_as_the_last_argument_refuses_an_upload_that_stalls
    the_authors_own_extractor_answers_for_a_body_that_is_too_large_or_fails
    a_body_that_is_not_compared_streams_into_its_handler_without_a_limit_of_ours
    a_failing_body_that_an_argument_has_swallowed_is_answered_by_the_handler_and_not_kept
    a_success_after_a_swallowed_failure_is_kept_for_no_whole_request
    a_body_that_no_argument_reads_is_compared
    a_body_that_a_handler_reads_itself_is_compared_and_whole
    a_multipart_form_is_compared_before_its_handler_reads_it
}

/// More than axum's limit where none is set.
const LARGE: usize = 3 * 1024 * 1024;

/// A little more: a service that refuses it has read it, so that its answer is not lost with the connection.
const OVER: usize = 2 * 1024 * 1024 + 1;

struct User;

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let token = parts.headers.get("x-token");
        token.map(|_| Self).ok_or(StatusCode::UNAUTHORIZED)
    }
}

#[idempotent(ttl = "24h", scope = global)]
async fn authenticated(_: User) {}

async fn authentication_as_the_last_argument_refuses_an_upload_that_stalls(service: Service) {
    let lines = ["idempotency-key: k", "content-length: 1000"];
    // Nothing of the body is ever sent.
    let refused = Raw::post(service.address, "/authenticated", &lines)
        .await
        .answer()
        .await;
    assert_eq!(refused.status, 401);
}

/// The author's own extractor, with a limit and answers of its own.
struct Short(String);

impl<S: Sync> FromRequest<S> for Short {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        let mut body = request.into_body();
        let mut text = String::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| (StatusCode::BAD_REQUEST, format!("own: {error}")).into_response())?;
            text += &String::from_utf8_lossy(frame.data_ref().map_or(b"", |data| data));
            if text.len() > 10 {
                return Err((StatusCode::PAYLOAD_TOO_LARGE, "own: no more than ten").into_response());
            }
        }
        Ok(Self(text))
    }
}

#[idempotent(ttl = "24h", scope = global)]
async fn short(Short(text): Short) -> String {
    text
}

async fn the_authors_own_extractor_answers_for_a_body_that_is_too_large_or_fails(service: Service) {
    let call = |body: String| service.client.call(Method::POST, "/short").key("k").body(body);
    for length in [11, 1000] {
        let refused = call("x".repeat(length)).send().await;
        assert_eq!(
            (refused.status.as_u16(), &refused.body[..]),
            (413, &b"own: no more than ten"[..])
        );
    }
    let mut failing = Raw::post_chunked(service.address, "/short", &["idempotency-key: k"]).await;
    failing.chunk(b"half").await;
    failing.write(b"no size\r\n").await;
    let refused = failing.answer().await;
    assert_eq!(
        (refused.status, refused.body.starts_with("own: ")),
        (400, true),
        "{refused:?}"
    );
    let accepted = call("ten or so".to_owned()).send().await;
    assert_eq!(accepted.status, StatusCode::OK);
    assert!(!accepted.is_replay());
    call("ten or so".to_owned()).send().await.assert_replays(&accepted);
}

/// How many bytes a streaming handler has read so far.
#[derive(Clone)]
struct Seen(Arc<watch::Sender<usize>>);

impl Seen {
    /// Reads as the bytes come, and answers with their number and the trailers.
    async fn read(self, mut body: Body) -> Result<String, StatusCode> {
        let (mut length, mut trailers) = (0, 0);
        while let Some(frame) = body.frame().await {
            match frame.map_err(|_| StatusCode::BAD_REQUEST)?.into_data() {
                Ok(data) => {
                    length += data.len();
                    self.0.send_modify(|seen| *seen += data.len());
                }
                Err(_) => trailers += 1,
            }
        }
        Ok(format!("{length} bytes, {trailers} trailers"))
    }
}

#[idempotent(ttl = "24h", scope = global, required = false)]
async fn without_key(Extension(seen): Extension<Seen>, request: Request) -> Result<String, StatusCode> {
    seen.read(request.into_body()).await
}

#[idempotent(ttl = "24h", scope = global, fingerprint = "none")]
async fn uncompared(Extension(seen): Extension<Seen>, request: Request) -> Result<String, StatusCode> {
    seen.read(request.into_body()).await
}

#[idempotent(ttl = "24h", scope = global, fingerprint = request.method().as_str())]
async fn by_value(Extension(seen): Extension<Seen>, request: Request) -> Result<String, StatusCode> {
    seen.read(request.into_body()).await
}

async fn a_body_that_is_not_compared_streams_into_its_handler_without_a_limit_of_ours(service: Service) {
    for (path, key) in [
        ("/without-key", "x-other: k"),
        ("/uncompared", "idempotency-key: k"),
        ("/by-value", "idempotency-key: k"),
    ] {
        let seen = Seen(Arc::default());
        let routes = streaming_routes().layer(Extension(seen.clone()));
        let service = if service.redis.is_some() {
            Service::redis(routes).await
        } else {
            Service::memory(routes).await
        };
        let mut upload = Raw::post_chunked(service.address, path, &[key]).await;
        upload.chunk(b"first").await;
        // The rest is not sent before the handler has read this.
        let mut read = seen.0.subscribe();
        read.wait_for(|seen| *seen == 5).await.expect("the sender lives");
        upload.chunk(&vec![b'x'; LARGE]).await;
        upload.write(b"0\r\nx-sum: 1\r\n\r\n").await;
        let answer = upload.answer().await;
        let expected = format!("{} bytes, 1 trailers", LARGE + 5);
        assert_eq!((answer.status, answer.body), (200, expected), "{path}");
    }
}

fn streaming_routes() -> Router<App> {
    Router::new()
        .route("/without-key", post(without_key))
        .route("/uncompared", post(uncompared))
        .route("/by-value", post(by_value))
}

/// Makes something of a body that cannot be read.
#[idempotent(ttl = "24h", scope = global)]
async fn swallowing(json: Result<Json<Value>, JsonRejection>) -> Response {
    match json {
        Ok(Json(value)) => (StatusCode::CREATED, value.to_string()).into_response(),
        Err(rejection) => (rejection.status(), "the author's own").into_response(),
    }
}

#[idempotent(ttl = "24h", scope = global)]
async fn forgiving(json: Result<Json<Value>, JsonRejection>) -> (StatusCode, String) {
    (StatusCode::CREATED, format!("{}", json.is_ok()))
}

const JSON: &str = "content-type: application/json";

async fn a_failing_body_that_an_argument_has_swallowed_is_answered_by_the_handler_and_not_kept(service: Service) {
    let json = |body: String| {
        let call = service.client.call(Method::POST, "/swallowing").key("k");
        call.header("content-type", b"application/json").body(body).send()
    };
    for _ in 0..2 {
        let refused = json(format!("\"{}\"", "x".repeat(OVER))).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.body[..]),
            (413, &b"the author's own"[..])
        );
        assert!(!refused.is_replay());
        let mut failing = Raw::post_chunked(service.address, "/swallowing", &["idempotency-key: k", JSON]).await;
        failing.chunk(b"\"half").await;
        failing.write(b"no size\r\n").await;
        let refused = failing.answer().await;
        assert_eq!(
            (refused.status, refused.body.as_str()),
            (400, "the author's own"),
            "{refused:?}"
        );
    }
    let accepted = json("1".to_owned()).await;
    assert_eq!((accepted.status, accepted.is_replay()), (StatusCode::CREATED, false));
    // What is wrong with a whole body is final.
    let malformed = service
        .client
        .call(Method::POST, "/swallowing")
        .key("l")
        .header("content-type", b"application/json");
    let malformed = malformed.body("{").send().await;
    assert_eq!(malformed.status, StatusCode::BAD_REQUEST);
    let again = service
        .client
        .call(Method::POST, "/swallowing")
        .key("l")
        .header("content-type", b"application/json");
    again.body("{").send().await.assert_replays(&malformed);
}

async fn a_success_after_a_swallowed_failure_is_kept_for_no_whole_request(service: Service) {
    let mut failing = Raw::post_chunked(service.address, "/forgiving", &["idempotency-key: k", JSON]).await;
    failing.chunk(b"12").await;
    failing.write(b"no size\r\n").await;
    let done = failing.answer().await;
    assert_eq!((done.status, done.body.as_str()), (201, "false"), "{done:?}");
    for body in ["12", "1", "123"] {
        let call = service.client.call(Method::POST, "/forgiving").key("k");
        let whole = call.header("content-type", b"application/json").body(body).send().await;
        assert_eq!(
            whole.problem(),
            "key-reused",
            "{body}: neither a replay nor a second run"
        );
    }
}

#[idempotent(ttl = "24h", scope = global)]
async fn bodiless(State(_): State<App>) -> &'static str {
    "done"
}

async fn a_body_that_no_argument_reads_is_compared(service: Service) {
    let send = |body: String| {
        service
            .client
            .call(Method::POST, "/bodiless")
            .key("k")
            .body(body)
            .send()
    };
    let refused = send("x".repeat(OVER)).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    let by_axum = service
        .client
        .call(Method::POST, "/naive")
        .body("x".repeat(OVER))
        .send()
        .await;
    assert_eq!(refused.without_marker(), by_axum.without_marker());
    let mut failing = Raw::post_chunked(service.address, "/bodiless", &["idempotency-key: k"]).await;
    failing.chunk(b"half").await;
    failing.write(b"no size\r\n").await;
    assert_eq!(failing.answer().await.status, 400);
    let first = send("a".to_owned()).await;
    assert_eq!(
        (first.status, first.is_replay()),
        (StatusCode::OK, false),
        "nothing was claimed"
    );
    send("a".to_owned()).await.assert_replays(&first);
    assert_eq!(send("b".to_owned()).await.problem(), "key-reused");
    // Where the limit is another one, it is that.
    let small = service
        .client
        .call(Method::POST, "/small")
        .key("k")
        .body("x".repeat(11));
    assert_eq!(small.send().await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let unlimited = service
        .client
        .call(Method::POST, "/unlimited")
        .key("k")
        .body("x".repeat(LARGE));
    assert_eq!(unlimited.send().await.status, StatusCode::OK);
}

async fn naive(_: Bytes) {}

#[idempotent(ttl = "24h", scope = global)]
async fn reading(request: Request) -> Result<String, StatusCode> {
    Seen(Arc::default()).read(request.into_body()).await
}

async fn a_body_that_a_handler_reads_itself_is_compared_and_whole(service: Service) {
    let upload = async |body: &[u8]| {
        let mut upload = Raw::post_chunked(service.address, "/reading", &["idempotency-key: k"]).await;
        for chunk in body.chunks(1000) {
            upload.chunk(chunk).await;
        }
        upload.write(b"0\r\nx-sum: 1\r\n\r\n").await;
        upload.answer().await
    };
    assert_eq!(upload(&vec![b'x'; OVER]).await.status, 413);
    for replayed in [false, true] {
        let answer = upload(&[b'x'; 2500]).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "2500 bytes, 1 trailers"));
        assert_eq!(answer.head.contains("idempotent-replayed: true"), replayed);
    }
    assert!(upload(&[b'y'; 2500]).await.body.contains("key-reused"));
}

#[idempotent(ttl = "24h", scope = global)]
async fn form(mut form: Multipart) -> Result<String, StatusCode> {
    let mut fields = String::new();
    while let Some(field) = form.next_field().await.map_err(|_| StatusCode::BAD_REQUEST)? {
        fields += &field.text().await.map_err(|_| StatusCode::BAD_REQUEST)?;
    }
    Ok(fields)
}

async fn a_multipart_form_is_compared_before_its_handler_reads_it(service: Service) {
    let send = |boundary: &str, value: &str| {
        let body =
            format!("--{boundary}\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n{value}\r\n--{boundary}--\r\n");
        let call = service.client.call(Method::POST, "/form").key("k").body(body);
        let content_type = format!("multipart/form-data; boundary={boundary}");
        call.header("content-type", content_type.as_bytes()).send()
    };
    let first = send("one", "value").await;
    assert_eq!(first.body, "value");
    send("another", "value").await.assert_replays(&first);
    assert_eq!(send("one", "other").await.problem(), "key-reused");
}

fn routes() -> Router<App> {
    Router::new()
        .route("/authenticated", post(authenticated))
        .route("/short", post(short))
        .route("/swallowing", post(swallowing))
        .route("/forgiving", post(forgiving))
        .route("/bodiless", post(bodiless))
        .route("/small", post(bodiless).layer(DefaultBodyLimit::max(10)))
        .route("/unlimited", post(bodiless).layer(DefaultBodyLimit::disable()))
        .route("/naive", post(naive))
        .route("/reading", post(reading))
        .route("/form", post(form))
}

/// Hands what it reads to somebody else, who goes on reading.
struct Pumped(tokio::sync::mpsc::Receiver<Bytes>);

impl<S: Sync> FromRequest<S> for Pumped {
    type Rejection = StatusCode;

    async fn from_request(request: Request, _: &S) -> Result<Self, StatusCode> {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let mut body = request.into_body().into_data_stream();
            while let Some(Ok(data)) = body.next().await {
                if sender.send(data).await.is_err() {
                    break;
                }
            }
        });
        Ok(Self(receiver))
    }
}

#[idempotent(ttl = "24h", scope = global)]
async fn pumped(Pumped(mut data): Pumped) -> String {
    let mut length = 0;
    while let Some(data) = data.recv().await {
        length += data.len();
    }
    length.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_argument_that_reads_in_a_task_of_its_own_gets_every_byte() {
    in_time(async {
        let service = Service::memory(Router::<App>::new().route("/", post(pumped))).await;
        for round in 0..20 {
            let key = format!("k-{round}");
            let body = "x".repeat(1_000_000);
            let send = || {
                service
                    .client
                    .call(Method::POST, "/")
                    .key(&key)
                    .body(body.clone())
                    .send()
            };
            let first = send().await;
            assert_eq!(first.body, "1000000");
            send().await.assert_replays(&first);
        }
    })
    .await;
}

/// Reads a body whatever its length, though axum has a limit.
struct Whole(Bytes);

impl<S: Sync> FromRequest<S> for Whole {
    type Rejection = StatusCode;

    async fn from_request(request: Request, _: &S) -> Result<Self, StatusCode> {
        let body = to_bytes(request.into_body(), usize::MAX).await;
        body.map(Self).map_err(|_| StatusCode::BAD_REQUEST)
    }
}

#[idempotent(ttl = "24h", scope = global)]
async fn whole(Whole(body): Whole) -> String {
    body.len().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_argument_with_a_larger_limit_than_axums_has_its_own() {
    in_time(async {
        let service = Service::memory(Router::<App>::new().route("/", post(whole))).await;
        let send = |byte: &str| {
            service
                .client
                .call(Method::POST, "/")
                .key("k")
                .body(byte.repeat(LARGE))
                .send()
        };
        let first = send("x").await;
        assert_eq!(
            (first.status, first.body.to_vec()),
            (StatusCode::OK, LARGE.to_string().into_bytes())
        );
        send("x").await.assert_replays(&first);
        assert_eq!(send("y").await.problem(), "key-reused");
    })
    .await;
}
