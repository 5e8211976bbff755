//! IDEM-5, IDEM-6: clients that leave half-way.
//!
//! axum drops a handler whose client has left. Each test waits until it has, before the handler may go on.

use axum::Router;
use axum::http::StatusCode;
use bytes::Bytes;
use idem_tests::{Order, Service, TENANT, on_every_backend};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

on_every_backend! {
    a_closed_connection_does_not_stop_the_handler
    a_reset_connection_does_not_stop_the_handler
    a_cancelled_http2_stream_does_not_stop_the_handler
    drain_waits_for_a_handler_whose_client_has_gone
    what_a_handler_holds_without_a_name_is_held_to_its_end
}

/// Sends a whole request over HTTP/1.1 and leaves the answer unread.
async fn send_http1(service: &Service, path: &str) -> TcpStream {
    let body = serde_json::to_string(&Order::new("o").held()).expect("JSON");
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TENANT}\r\nidempotency-key: k\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(service.address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    stream
}

/// The effect happened once, and a retry gets the answer that nobody was there for.
async fn assert_executed_once_and_replayed(service: &Service) {
    service.app.open_gate();
    service.idempotency.drain().await;
    let retry = service.client.order("k", &Order::new("o").held()).send().await;
    assert_eq!(retry.status, StatusCode::CREATED);
    assert!(retry.is_replay());
    assert_eq!(service.app.executions("o"), 1);
}

async fn a_closed_connection_does_not_stop_the_handler(service: Service) {
    let stream = send_http1(&service, "/orders").await;
    service.app.wait_until_started(1).await;
    drop(stream);
    service.app.wait_until_departed(1).await;
    assert_executed_once_and_replayed(&service).await;
}

async fn a_reset_connection_does_not_stop_the_handler(service: Service) {
    let stream = send_http1(&service, "/orders").await;
    service.app.wait_until_started(1).await;
    stream.set_zero_linger().expect("a socket option");
    drop(stream);
    service.app.wait_until_departed(1).await;
    assert_executed_once_and_replayed(&service).await;
}

async fn a_cancelled_http2_stream_does_not_stop_the_handler(service: Service) {
    let stream = TcpStream::connect(service.address).await.expect("it listens");
    let (client, connection) = h2::client::handshake(stream).await.expect("it speaks HTTP/2");
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await.expect("a free stream");
    let request = http::Request::post(format!("http://{}/orders", service.address))
        .header("authorization", format!("Bearer {TENANT}"))
        .header("idempotency-key", "k")
        .header("content-type", "application/json")
        .body(())
        .expect("a request");
    let (_response, mut sending) = client.send_request(request, false).expect("it is sent");
    let body = serde_json::to_vec(&Order::new("o").held()).expect("JSON");
    sending.send_data(Bytes::from(body), true).expect("it is sent");
    service.app.wait_until_started(1).await;
    sending.send_reset(h2::Reason::CANCEL);
    service.app.wait_until_departed(1).await;
    assert_executed_once_and_replayed(&service).await;
    connection.abort();
}

async fn drain_waits_for_a_handler_whose_client_has_gone(service: Service) {
    let stream = send_http1(&service, "/orders").await;
    service.app.wait_until_started(1).await;
    drop(stream);
    service.app.wait_until_departed(1).await;

    let mut draining = std::pin::pin!(service.idempotency.drain());
    tokio::select! {
        biased;
        () = &mut draining => panic!("the handler has not ended"),
        () = std::future::ready(()) => {}
    }
    service.app.open_gate();
    draining.await;

    let retry = service.client.order("k", &Order::new("o").held()).send().await;
    assert!(retry.is_replay(), "{retry:?}");
}

async fn what_a_handler_holds_without_a_name_is_held_to_its_end(service: Service) {
    let stream = send_http1(&service, "/orders/holding").await;
    service.app.wait_until_started(1).await;
    drop(stream);
    service.app.wait_until_departed(1).await;
    assert_eq!(service.app.returned_permits(), 0);
    service.app.open_gate();
    service.idempotency.drain().await;
    assert_eq!(service.app.returned_permits(), 1);
}

/// The difference that the attribute makes: this is what happens without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_attribute_a_closed_connection_drops_the_handler_and_a_retry_runs_it_again() {
    let service = Service::memory(Router::new()).await;
    let stream = send_http1(&service, "/orders/naive").await;
    service.app.wait_until_started(1).await;
    drop(stream);
    service.app.wait_until_departed(1).await;
    service.app.open_gate();
    let retry = service
        .client
        .order_at("/orders/naive", "k", &Order::new("o").held())
        .send()
        .await;
    assert_eq!(retry.json()["execution"], 2);
}
