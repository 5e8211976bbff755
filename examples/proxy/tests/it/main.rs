//! The service behind the proxy gets each request once, over real sockets.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use idem_axum::{Idempotency, MemoryBackend};
use reqwest::{Client, Response};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// The service behind: it counts its orders, and can be held.
#[derive(Clone)]
struct Behind {
    orders: Arc<AtomicU32>,
    gate: Arc<Semaphore>,
    entered: Arc<Semaphore>,
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, router).await.expect("serving never ends") });
    address
}

impl Behind {
    fn new() -> Self {
        Self {
            orders: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            entered: Arc::new(Semaphore::new(0)),
        }
    }

    fn router(&self) -> Router {
        let behind = self.clone();
        let order = move |body: String| async move {
            let number = behind.orders.fetch_add(1, Ordering::SeqCst) + 1;
            behind.entered.add_permits(1);
            let _passed = behind.gate.acquire().await.expect("it is never closed");
            (
                StatusCode::CREATED,
                [("x-number", number.to_string())],
                format!("{body} is order {number}"),
            )
        };
        Router::new()
            .route("/orders", post(order))
            .route("/health", get(async || "well"))
    }
}

/// A proxy in front of `upstream`.
async fn proxy(upstream: SocketAddr) -> SocketAddr {
    let tenants = [("a", "acme"), ("g", "globex")].map(|(token, tenant)| (token.to_owned(), tenant.to_owned()));
    let tenants = Arc::new(HashMap::from(tenants));
    let idempotency = Idempotency::new(MemoryBackend::new());
    let router = proxy::router(&format!("http://{upstream}"), tenants, idempotency);
    serve(router.expect("a client")).await
}

async fn order(proxy: SocketAddr, token: &str, key: &str, body: &str) -> Response {
    let request = Client::new().post(format!("http://{proxy}/orders")).bearer_auth(token);
    let request = request.header("idempotency-key", key).body(body.to_owned());
    request.send().await.expect("the proxy answers")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_gets_the_answer_of_the_service_behind_and_does_not_reach_it() {
    let behind = Behind::new();
    behind.gate.add_permits(100);
    let proxy = proxy(serve(behind.router()).await).await;
    let first = order(proxy, "a", "k", "an umbrella").await;
    assert_eq!(first.status(), StatusCode::CREATED);
    assert_eq!(first.headers()["x-number"], "1");
    assert_eq!(first.text().await.expect("text"), "an umbrella is order 1");
    let retry = order(proxy, "a", "k", "an umbrella").await;
    assert_eq!(retry.headers()["idempotent-replayed"], "true");
    assert_eq!(retry.headers()["x-number"], "1");
    assert_eq!(retry.text().await.expect("text"), "an umbrella is order 1");
    assert_eq!(
        order(proxy, "a", "k", "a pump").await.status(),
        StatusCode::UNPROCESSABLE_ENTITY
    );
    // Another tenant under the same key.
    let other = order(proxy, "g", "k", "an umbrella").await;
    assert_eq!(other.text().await.expect("text"), "an umbrella is order 2");
    assert_eq!(
        order(proxy, "x", "k", "an umbrella").await.status(),
        StatusCode::UNAUTHORIZED
    );
    let health = Client::new().get(format!("http://{proxy}/health")).bearer_auth("a");
    let health = health.send().await.expect("the proxy answers");
    assert_eq!(health.text().await.expect("text"), "well");
    assert_eq!(behind.orders.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_loses_nothing() {
    let behind = Behind::new();
    let proxy = proxy(serve(behind.router()).await).await;
    let sending = tokio::spawn(async move { order(proxy, "a", "k", "an umbrella").await });
    let entered = behind.entered.acquire().await.expect("it is never closed");
    sending.abort();
    behind.gate.add_permits(100);
    loop {
        let retry = order(proxy, "a", "k", "an umbrella").await;
        if retry.status() == StatusCode::CREATED {
            assert_eq!(retry.headers()["idempotent-replayed"], "true");
            break;
        }
        assert_eq!(retry.status(), StatusCode::CONFLICT, "it is still on its way");
    }
    drop(entered);
    assert_eq!(behind.orders.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_is_away_is_a_503_that_a_retry_does_not_get() {
    let behind = Behind::new();
    behind.gate.add_permits(100);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let proxy = proxy(address).await;
    assert_eq!(
        order(proxy, "a", "k", "an umbrella").await.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    let listener = TcpListener::bind(address).await.expect("the port is still free");
    let router = behind.router();
    tokio::spawn(async move { axum::serve(listener, router).await.expect("serving never ends") });
    let retry = order(proxy, "a", "k", "an umbrella").await;
    assert_eq!(retry.status(), StatusCode::CREATED);
    assert!(!retry.headers().contains_key("idempotent-replayed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_acts_and_then_breaks_off_is_not_asked_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let orders = Arc::new(AtomicU32::new(0));
    let placed = orders.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("it listens");
            let mut request = [0; 1024];
            let len = stream.read(&mut request).await.expect("a request");
            assert!(len > 0);
            placed.fetch_add(1, Ordering::SeqCst);
            // It places the order, and its answer is lost.
            drop(stream);
        }
    });
    let proxy = proxy(address).await;
    assert_eq!(
        order(proxy, "a", "k", "an umbrella").await.status(),
        StatusCode::BAD_GATEWAY
    );
    let retry = order(proxy, "a", "k", "an umbrella").await;
    assert_eq!(retry.status(), StatusCode::CONFLICT);
    assert_eq!(orders.load(Ordering::SeqCst), 1);
}
