//! A service that starts before its Redis: IDEM-13 holds from the first request on.

use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use idem_axum::redis::{Client, cluster::ClusterClient};
use idem_axum::{Backend as _, BackendErrorKind, RedisBackend, RedisClient};
use idem_tests::{Log, Order, RedisCluster, RedisServer, Sentinels, Service, in_time, until};

/// Far above what anything here takes, and far below what it would take without a deadline.
const ON_TIME: Duration = Duration::from_secs(10);

/// What requests get while Redis is away.
async fn assert_outage(service: &Service) {
    let asked = Instant::now();
    for key in ["1", "2"] {
        let refused = service.client.order(key, &Order::new("o")).send().await;
        assert_eq!(refused.problem(), "backend-unavailable");
    }
    assert_eq!(service.app.executions("o"), 0);
    let order = Order::new("unprotected");
    let run = service
        .client
        .order_at("/orders/run-in-outage", "k", &order)
        .send()
        .await;
    assert_eq!(run.status, StatusCode::CREATED, "{run:?}");
    assert!(service.idempotency.check().await.is_err());
    assert!(asked.elapsed() < ON_TIME, "{:?}", asked.elapsed());
}

/// Requests run once and are replayed, soon after Redis has come.
async fn assert_service(service: &Service) {
    let come = Instant::now();
    until("a request runs", async || {
        let answer = service.client.order("k", &Order::new("o")).send().await;
        answer.status == StatusCode::CREATED
    })
    .await;
    assert!(come.elapsed() < ON_TIME, "{:?}", come.elapsed());
    assert!(service.client.order("k", &Order::new("o")).send().await.is_replay());
    assert_eq!(service.app.executions("o"), 1);
    // The nodes of a cluster agree one after the other.
    until("it is ready", async || service.idempotency.check().await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_starts_before_its_server() {
    in_time(async {
        let mut server = RedisServer::start().await;
        server.kill();
        let backend = RedisBackend::lazy(&server.url()).expect("a URL");
        let service = Service::start(backend, Router::new(), None).await;
        assert_outage(&service).await;
        server.restart().await;
        assert_service(&service).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_starts_before_its_cluster() {
    in_time(async {
        let mut cluster = RedisCluster::start().await;
        let backend = RedisBackend::lazy(&cluster.url()).expect("a URL");
        let service = Service::start(backend, Router::new(), None).await;
        cluster.restart_after(async || assert_outage(&service).await).await;
        assert_service(&service).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_starts_before_its_sentinels_have_a_primary() {
    in_time(async {
        let mut redis = Sentinels::start().await;
        redis.primary.kill();
        let backend = RedisBackend::lazy(&redis.url()).expect("a URL");
        let service = Service::start(backend, Router::new(), None).await;
        // Until they agree that it is lost.
        assert_outage(&service).await;
        redis.fail_over().await;
        assert_service(&service).await;
    })
    .await;
}

/// Each on a server, a cluster and sentinels that nobody has started.
#[test]
fn nothing_is_sent_before_the_first_call_and_no_runtime_is_needed() {
    for url in [
        "redis://127.0.0.1:1/",
        "redis+cluster://127.0.0.1:1,127.0.0.1:2",
        "redis+sentinel://127.0.0.1:1/orders",
    ] {
        RedisBackend::lazy(url).expect(url);
    }
    let client = Client::open("redis://127.0.0.1:1/").expect("a URL");
    let clients: [RedisClient; 3] = [
        client.clone().into(),
        RedisClient::cluster([client]).expect("a node"),
        ClusterClient::new(["redis://127.0.0.1:1/"]).expect("a URL").into(),
    ];
    for client in clients {
        RedisBackend::lazy_with(client).expect("a client");
    }
    for url in ["redis//localhost", "redis+cluster://", "redis+sentinel://127.0.0.1:1/"] {
        let error = RedisBackend::lazy(url).expect_err(url);
        assert_eq!(error.kind(), BackendErrorKind::Config, "{url}: {error:?}");
    }
}

#[tokio::test]
async fn the_server_is_checked_once_when_it_is_reached_for_the_first_time() {
    let mut server = RedisServer::start().await;
    server.kill();
    let backend = RedisBackend::lazy(&server.url()).expect("a URL");
    let (log, _logging) = Log::listen(tracing::Level::INFO);
    assert!(backend.check().await.is_err());
    server.restart().await;
    server.set("maxmemory", "100mb").await;
    server.set("maxmemory-policy", "allkeys-lru").await;
    until("it is warned about", async || {
        backend.check().await.is_ok() && !log.lines_with("set maxmemory-policy noeviction").is_empty()
    })
    .await;
    // The connection after that is another one of the same server.
    server.tell("CLIENT KILL TYPE normal SKIPME yes").await;
    until("it is reached again", async || backend.check().await.is_ok()).await;
    for _ in 0..3 {
        backend.check().await.expect("it is there");
    }
    assert_eq!(
        log.lines_with("set maxmemory-policy noeviction").len(),
        1,
        "{}",
        log.text()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_is_any_text() {
    let server = RedisServer::start().await;
    let backend = RedisBackend::lazy(&server.url()).expect("a URL");
    let prefix = String::from("orders-eu");
    let service = Service::start(backend.with_prefix(&prefix), Router::new(), None).await;
    service.client.order("k", &Order::new("o")).send().await;
    assert_eq!(server.records().await, 1);
    let _borrowed = RedisBackend::lazy(&server.url()).expect("a URL").with_prefix(prefix);
}
