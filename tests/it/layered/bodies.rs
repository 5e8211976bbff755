//! Bodies under the layer: limits to the byte, trailers, and streams that stay streams.

use std::convert::Infallible;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::routing::post;
use futures_util::{StreamExt as _, stream};
use http_body_util::BodyExt as _;
use idem_axum::{Compared, Policy};
use idem_tests::in_time;
use reqwest::Method;
use tokio::sync::mpsc;
use tower_http::limit::RequestBodyLimitLayer;

use super::{idempotency, layer, serve};

const LIMIT: usize = 64 * 1024;

#[tokio::test]
async fn a_body_of_the_limit_runs_and_one_byte_more_is_413_and_claims_nothing() {
    let idempotency = idempotency();
    let handler = async |body: Bytes| body.len().to_string();
    let layer = layer(&idempotency).with_body_limit(LIMIT as u64);
    let routes = Router::new().route("/x", post(handler)).layer(layer);
    let service = serve(&idempotency, routes).await;
    let call = |key: &str, len: usize| service.client.call(Method::POST, "/x").key(key).body(vec![b'x'; len]);
    let streamed = |key: &str, len: usize| {
        let pieces = [len / 2, len - len / 2].map(|len| Ok::<_, Infallible>(vec![b'x'; len]));
        let body = reqwest::Body::wrap_stream(stream::iter(pieces));
        service.client.call(Method::POST, "/x").key(key).body(body)
    };
    for len in [LIMIT - 1, LIMIT] {
        let first = call(&len.to_string(), len).send().await;
        assert_eq!(first.body, len.to_string());
        // The same bytes in pieces are the same request.
        streamed(&len.to_string(), len).send().await.assert_replays(&first);
    }
    for refused in [
        call("large", LIMIT + 1).send().await,
        streamed("large", LIMIT + 1).send().await,
    ] {
        assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(refused.problem(), "too-large");
    }
    let other = call("large", 1).send().await;
    assert_eq!((other.status, other.is_replay()), (StatusCode::OK, false));
}

#[tokio::test]
async fn a_limit_outside_of_the_layer_is_413_too() {
    let idempotency = idempotency();
    let routes = Router::new()
        .route("/x", post(async |_: Bytes| "read"))
        .layer(layer(&idempotency))
        .layer(RequestBodyLimitLayer::new(10));
    let service = serve(&idempotency, routes).await;
    let pieces = [Ok::<_, Infallible>(vec![b'x'; 11])];
    let body = reqwest::Body::wrap_stream(stream::iter(pieces));
    let refused = service.client.call(Method::POST, "/x").key("k").body(body).send().await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn the_inner_service_gets_data_and_trailers_and_keeps_its_own_limit() {
    let idempotency = idempotency();
    let handler = async |request: Request| {
        let collected = request
            .into_body()
            .collect()
            .await
            .map_err(|_| StatusCode::BAD_REQUEST)?;
        let sum = collected.trailers().and_then(|trailers| trailers.get("x-sum")).cloned();
        let sum = sum.map(|sum| sum.to_str().expect("it is text").to_owned());
        Ok::<_, StatusCode>(format!("{} {sum:?}", collected.to_bytes().len()))
    };
    let routes = Router::new()
        .route("/trailers", post(handler))
        .route(
            "/limited",
            post(async |_: Bytes| "read").layer(DefaultBodyLimit::max(10)),
        )
        .layer(layer(&idempotency));
    let service = serve(&idempotency, routes).await;
    let chunked = "POST /trailers HTTP/1.1\r\nhost: x\r\nidempotency-key: k\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\
                   connection: close\r\n\r\n4\r\ndata\r\n0\r\nx-sum: 1\r\n\r\n";
    let answer = in_time(exchange(service.address, chunked)).await;
    assert!(answer.ends_with("4 Some(\"1\")"), "{answer}");
    let limited = service
        .client
        .call(Method::POST, "/limited")
        .key("k")
        .body(vec![b'x'; 11])
        .send()
        .await;
    assert_eq!(limited.status, StatusCode::PAYLOAD_TOO_LARGE);
}

/// Sends text and reads the answer to its end.
async fn exchange(address: std::net::SocketAddr, text: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    stream.write_all(text.as_bytes()).await.expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers in text");
    answer
}

#[tokio::test]
async fn a_streamed_answer_reaches_the_client_in_pieces_and_is_replayed_whole() {
    let idempotency = idempotency();
    let (sender, receiver) = mpsc::unbounded_channel::<&'static str>();
    let receiver = std::sync::Arc::new(tokio::sync::Mutex::new(Some(receiver)));
    let handler = move || async move {
        let mut receiver = receiver.lock().await.take().expect("it runs once");
        let pieces = stream::poll_fn(move |context| receiver.poll_recv(context)).map(Ok::<_, Infallible>);
        Body::from_stream(pieces)
    };
    let routes = Router::new().route("/x", post(handler)).layer(layer(&idempotency));
    let service = serve(&idempotency, routes).await;
    let call = || service.client.call(Method::POST, "/x").key("k");
    let mut first = call().stream().await;
    for piece in ["one", "two"] {
        sender.send(piece).expect("the handler has it");
        let got = in_time(first.chunk()).await.expect("it is open");
        assert_eq!(got.as_deref(), Some(piece.as_bytes()));
    }
    drop(sender);
    assert_eq!(in_time(first.chunk()).await.expect("it is open"), None);
    let replay = call().send().await;
    assert!(replay.is_replay());
    assert_eq!(replay.body, "onetwo");
}

#[tokio::test]
async fn a_body_that_is_not_compared_is_not_read_before_the_handler_runs() {
    let idempotency = idempotency();
    let (started, mut starts) = mpsc::unbounded_channel();
    let handler = move |request: Request| {
        started.send(()).expect("the test listens");
        async move {
            let body = request.into_body().collect().await.expect("it is whole").to_bytes();
            body.len().to_string()
        }
    };
    let policy = Policy::new().with_fingerprint(Compared::Nothing);
    let layer = layer(&idempotency).with_policy(policy).with_body_limit(1);
    let service = serve(&idempotency, Router::new().route("/x", post(handler)).layer(layer)).await;
    let (pieces, receiver) = mpsc::unbounded_channel::<Result<Vec<u8>, Infallible>>();
    let mut receiver = Some(receiver);
    let mut receiver = receiver.take().expect("it is there");
    let body = reqwest::Body::wrap_stream(stream::poll_fn(move |context| receiver.poll_recv(context)));
    let sending = tokio::spawn(service.client.call(Method::POST, "/x").key("k").body(body).send());
    pieces.send(Ok(vec![b'x'; 1000])).expect("the request is on its way");
    in_time(starts.recv())
        .await
        .expect("the handler runs before its body has ended");
    drop(pieces);
    assert_eq!(in_time(sending).await.expect("no panic").body, "1000");
}
