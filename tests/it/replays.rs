//! IDEM-2: replays that nobody can tell from the first answer, over both versions of HTTP.

use std::convert::Infallible;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::post;
use futures_util::stream;
use idem_axum::idempotent;
use idem_tests::{App, Client, Service, on_every_backend};
use reqwest::Method;

on_every_backend! {
    routes: super::routes();
    every_answer_is_replayed_as_it_was_over_both_versions_of_http
    an_answer_of_one_version_of_http_is_replayed_over_the_other
    an_answer_that_can_have_no_body_has_none
    a_body_that_is_not_as_long_as_its_header_says_is_not_replayed
    a_large_upload_in_pieces_is_the_same_request_again
}

type Lines = &'static [(&'static str, &'static [u8])];

/// A body as handlers make them.
#[derive(Clone, Copy)]
enum Made {
    Whole(&'static [u8]),
    /// In pieces that are not there at once.
    Streamed(&'static [&'static [u8]]),
}

const ANSWERS: [(&str, u16, Lines, Made); 19] = [
    ("empty", 200, &[], Made::Whole(b"")),
    ("text", 200, &[("content-type", b"text/plain")], Made::Whole(b"text")),
    ("binary", 201, &[("etag", b"\"1\"")], Made::Whole(b"\0\xFF\r\n\x1b")),
    ("accepted", 202, &[("location", b"/orders/1")], Made::Whole(b"")),
    ("no content", 204, &[("x-a", b"1")], Made::Whole(b"")),
    ("no content but a body", 204, &[], Made::Whole(b"never sent")),
    ("reset content", 205, &[], Made::Whole(b"")),
    (
        "partial",
        206,
        &[("content-range", b"bytes 0-3/10")],
        Made::Whole(b"0123"),
    ),
    ("moved", 301, &[("location", b"/elsewhere")], Made::Whole(b"")),
    ("see other", 303, &[("location", b"/orders/1")], Made::Whole(b"")),
    ("not modified", 304, &[("etag", b"\"1\"")], Made::Whole(b"")),
    (
        "not modified of a length",
        304,
        &[("content-length", b"1234")],
        Made::Whole(b""),
    ),
    (
        "unauthorized",
        401,
        &[("www-authenticate", b"Basic"), ("www-authenticate", b"Bearer")],
        Made::Whole(b""),
    ),
    ("unknown status", 299, &[], Made::Whole(b"odd")),
    (
        "cookies",
        200,
        &[("set-cookie", b"a=1"), ("x-b", b""), ("set-cookie", b"b=2; Path=/")],
        Made::Whole(b"c"),
    ),
    (
        "not text",
        200,
        &[("x-latin", b"caf\xE9"), ("x-utf8", "caf\u{e9}".as_bytes())],
        Made::Whole(b"c"),
    ),
    (
        "encoded",
        200,
        &[("content-encoding", b"gzip"), ("vary", b"accept-encoding")],
        Made::Whole(b"\x1f\x8b"),
    ),
    ("streamed", 200, &[], Made::Streamed(&[b"one", b"", b"two"])),
    (
        "streamed of a length",
        200,
        &[("content-length", b"6")],
        Made::Streamed(&[b"one", b"two"]),
    ),
];

fn respond(status: u16, lines: Lines, made: Made) -> Response {
    let mut response = Response::new(match made {
        Made::Whole(bytes) => Body::from(bytes),
        Made::Streamed(pieces) => Body::from_stream(stream::unfold(pieces.iter(), |mut pieces| async move {
            tokio::task::yield_now().await;
            let piece = pieces.next()?;
            Some((Ok::<_, Infallible>(Bytes::from_static(piece)), pieces))
        })),
    });
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    for (name, value) in lines {
        let value = HeaderValue::from_bytes(value).expect("a header value");
        response.headers_mut().append(*name, value);
    }
    response
}

#[idempotent(ttl = "1m", scope = global)]
async fn answer(name: String) -> Result<Response, StatusCode> {
    let (_, status, lines, made) = ANSWERS
        .into_iter()
        .find(|(known, ..)| *known == name)
        .ok_or(StatusCode::BAD_REQUEST)?;
    Ok(respond(status, lines, made))
}

#[idempotent(ttl = "1m", scope = global)]
async fn cut_short() -> Response {
    respond(200, &[("content-length", b"10")], Made::Streamed(&[b"one", b"two"]))
}

#[idempotent(ttl = "1m", scope = global)]
async fn upload(body: Bytes) -> String {
    body.len().to_string()
}

fn routes() -> Router<App> {
    Router::new()
        .route("/answer", post(answer))
        .route("/cut-short", post(cut_short))
        .route("/upload", post(upload))
}

async fn every_answer_is_replayed_as_it_was_over_both_versions_of_http(service: Service) {
    let http2 = Client::http2(&format!("http://{}", service.address));
    for (client, version) in [(&service.client, "1.1"), (&http2, "2")] {
        for (name, status, ..) in ANSWERS {
            let call = || {
                client
                    .call(Method::POST, "/answer")
                    .key(&format!("{version} {name}"))
                    .body(name)
            };
            let first = call().send().await;
            assert_eq!(first.status, status, "{name}");
            // Of a length that was announced, a client knows the end before it is recorded.
            service.idempotency.drain().await;
            call().send().await.assert_replays(&first);
        }
    }
}

async fn an_answer_of_one_version_of_http_is_replayed_over_the_other(service: Service) {
    let http2 = Client::http2(&format!("http://{}", service.address));
    for (name, ..) in ANSWERS {
        let call = |client: &Client| client.call(Method::POST, "/answer").key(name).body(name);
        let mut first = call(&service.client).send().await;
        service.idempotency.drain().await;
        let mut replay = call(&http2).send().await;
        assert!(replay.is_replay(), "{name}");
        // How a body is framed is the connection's.
        for headers in [&mut first.headers, &mut replay.headers] {
            headers.remove("transfer-encoding");
            headers.remove("content-length");
        }
        replay.assert_replays(&first);
    }
}

async fn an_answer_that_can_have_no_body_has_none(service: Service) {
    let http2 = Client::http2(&format!("http://{}", service.address));
    for client in [&service.client, &http2] {
        for _ in 0..2 {
            let name = "no content but a body";
            let answer = client.call(Method::POST, "/answer").key("k").body(name).send().await;
            assert_eq!(answer.status, StatusCode::NO_CONTENT);
            assert!(answer.body.is_empty());
        }
    }
}

async fn a_body_that_is_not_as_long_as_its_header_says_is_not_replayed(service: Service) {
    let call = || service.client.call(Method::POST, "/cut-short").key("k");
    assert!(
        call().try_send().await.is_err(),
        "the client sees that it was cut short"
    );
    service.idempotency.drain().await;
    assert_eq!(call().send().await.problem(), "response-not-stored");
}

async fn a_large_upload_in_pieces_is_the_same_request_again(service: Service) {
    let upload = |last: &'static str| {
        let pieces = (0..20).map(|_| Bytes::from(vec![b'x'; 10_000]));
        let pieces = pieces.chain([Bytes::from_static(last.as_bytes())]);
        let body = reqwest::Body::wrap_stream(stream::iter(pieces.map(Ok::<_, Infallible>)));
        service.client.call(Method::POST, "/upload").key("k").body(body)
    };
    let first = upload("a").send().await;
    assert_eq!(first.body, "200001");
    upload("a").send().await.assert_replays(&first);
    // The same bytes at once, and others at the end.
    let whole = [vec![b'x'; 200_000], b"a".to_vec()].concat();
    let whole = service.client.call(Method::POST, "/upload").key("k").body(whole);
    whole.send().await.assert_replays(&first);
    assert_eq!(upload("b").send().await.problem(), "key-reused");
}
