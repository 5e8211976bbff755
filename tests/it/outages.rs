//! IDEM-13, and what the promise needs of Redis: a server that is frozen, killed, slow, cut off, and one that forgets.
//!
//! What is broken where Redis loses records is shown here as `docs/semantics.md` says it.

use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use idem_axum::RedisBackend;
use idem_tests::{Answer, Order, PATIENCE, Proxy, RedisServer, Service, in_time};
use redis::AsyncTypedCommands as _;
use tokio::task::JoinHandle;

const KEY: &str = "idem:{POST%20/orders:acme:k}";

/// Far above what anything here takes, and far below what it would take without a deadline.
const ON_TIME: Duration = Duration::from_secs(10);

fn redis(service: &Service) -> &RedisServer {
    service.redis.as_ref().expect("it has one")
}

fn held() -> Order {
    Order::new("o").held()
}

/// A request whose handler has started and waits for the gate.
async fn start(service: &Service) -> JoinHandle<Answer> {
    let first = tokio::spawn(service.client.order("k", &held()).send());
    service.app.wait_until_started(1).await;
    first
}

/// The outcome is recorded by now or soon, and the handler has run once.
async fn assert_recorded_once(service: &Service, first: &Answer) {
    service.idempotency.drain().await;
    let retry = service.client.order("k", &held()).send().await;
    assert!(retry.is_replay(), "{retry:?}");
    assert_eq!((retry.status, &retry.body), (first.status, &first.body));
    assert_eq!(service.app.executions("o"), 1);
}

async fn behind_a_proxy() -> (Service, Proxy) {
    let server = RedisServer::start().await;
    let proxy = Proxy::start(server.address()).await;
    let backend = RedisBackend::connect(&format!("redis://{}/", proxy.address)).await;
    let service = Service::start(backend.expect("the server answers"), Router::new(), Some(server)).await;
    (service, proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_before_the_claim_it_is_a_503_on_time_and_the_claim_that_arrives_late_is_released() {
    in_time(async {
        let service = Service::redis(Router::new()).await;
        redis(&service).freeze();
        let asked = Instant::now();
        let answer = service.client.order("k", &Order::new("o")).send().await;
        let took = asked.elapsed();
        redis(&service).thaw();
        assert_eq!(answer.problem(), "backend-unavailable");
        assert!(took < ON_TIME, "{took:?}");
        service.idempotency.drain().await;
        assert_eq!(service.app.executions("o"), 0);
        let retry = service.client.order("k", &Order::new("o")).send().await;
        assert_eq!(retry.status, StatusCode::CREATED, "{retry:?}");
        assert_eq!(service.app.executions("o"), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_effect_and_completion_and_back_with_its_data_it_gets_the_outcome() {
    in_time(async {
        let server = RedisServer::start_durable().await;
        let backend = RedisBackend::connect(&server.url()).await;
        let mut service = Service::start(backend.expect("the server answers"), Router::new(), Some(server)).await;
        let first = start(&service).await;
        service.redis.as_mut().expect("it has one").kill();
        service.app.open_gate();
        let answered = Instant::now();
        let first = first.await.expect("no panic");
        let took = answered.elapsed();
        assert_eq!(first.status, StatusCode::CREATED);
        assert!(first.says_not_stored());
        assert!(took < ON_TIME, "{took:?}");
        // How long the outage is. The outcome is recorded however long it is.
        tokio::time::sleep(Duration::from_secs(3)).await;
        service.redis.as_mut().expect("it has one").restart().await;
        assert_recorded_once(&service, &first).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_its_scripts_records_all_the_same() {
    in_time(async {
        let service = Service::redis(Router::new()).await;
        service.client.order("warm", &Order::new("warm")).send().await;
        let first = tokio::spawn(service.client.order("k", &held()).send());
        service.app.wait_until_started(2).await;
        redis(&service).tell("SCRIPT FLUSH").await;
        service.app.open_gate();
        let first = first.await.expect("no panic");
        assert!(!first.says_not_stored(), "{first:?}");
        assert_recorded_once(&service, &first).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_while_a_handler_runs_cost_no_outcome() {
    in_time(async {
        let (service, proxy) = behind_a_proxy().await;
        let first = start(&service).await;
        proxy.cut_connections();
        service.app.open_gate();
        let first = first.await.expect("no panic");
        assert_eq!(first.status, StatusCode::CREATED);
        assert_recorded_once(&service, &first).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_way_to_the_server_is_no_outage_until_it_is_slower_than_the_deadline() {
    in_time(async {
        let (service, proxy) = behind_a_proxy().await;
        proxy.slow_down(Duration::from_millis(20));
        let first = service.client.order("k", &Order::new("o")).send().await;
        assert_eq!(first.status, StatusCode::CREATED);
        let retry = service.client.order("k", &Order::new("o")).send().await;
        assert!(retry.is_replay(), "{retry:?}");
        proxy.slow_down(Duration::from_secs(2));
        let answer = service.client.order("l", &Order::new("l")).send().await;
        assert_eq!(answer.problem(), "backend-unavailable");
        assert_eq!((service.app.executions("o"), service.app.executions("l")), (1, 0));
    })
    .await;
}

/// The claim is gone, so that a duplicate runs beside the first one: what `FLUSHALL` breaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_while_a_handler_runs_a_duplicate_runs_beside_it_and_the_first_one_is_not_stored() {
    in_time(async {
        let service = Service::redis(Router::new()).await;
        let first = start(&service).await;
        redis(&service).tell("FLUSHALL").await;
        assert_a_duplicate_runs_beside(&service, first).await;
    })
    .await;
}

async fn assert_a_duplicate_runs_beside(service: &Service, first: JoinHandle<Answer>) {
    let second = tokio::spawn(service.client.order("k", &held()).send());
    service.app.wait_until_started(2).await;
    service.app.open_gate();
    let (first, second) = (first.await.expect("no panic"), second.await.expect("no panic"));
    assert!(
        first.says_not_stored() && !second.says_not_stored(),
        "{first:?}, {second:?}"
    );
    assert_eq!(
        (first.status, second.status),
        (StatusCode::CREATED, StatusCode::CREATED)
    );
    assert_eq!(service.app.executions("o"), 2);
    let retry = service.client.order("k", &held()).send().await;
    retry.assert_replays(&second);
}

/// The outcome is gone, so that a retry runs again: what a restart without data breaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_empty_it_has_forgotten_what_ran_and_a_retry_runs_again() {
    in_time(async {
        let mut service = Service::redis(Router::new()).await;
        let first = start(&service).await;
        service.redis.as_mut().expect("it has one").restart().await;
        service.app.open_gate();
        let first = first.await.expect("no panic");
        assert_eq!(first.status, StatusCode::CREATED);
        assert!(first.says_not_stored(), "nobody knows who has run since: {first:?}");
        service.idempotency.drain().await;
        let second = service.client.order("k", &held()).send().await;
        assert!(
            !second.is_replay() && second.status == StatusCode::CREATED,
            "{second:?}"
        );
        assert_eq!(service.app.executions("o"), 2);

        service.redis.as_mut().expect("it has one").restart().await;
        let third = service.client.order("k", &held()).send().await;
        assert!(!third.is_replay() && third.status == StatusCode::CREATED, "{third:?}");
        assert_eq!(service.app.executions("o"), 3);
    })
    .await;
}

/// The claim is evicted under a policy that evicts: what `maxmemory-policy noeviction` is for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evicted_while_a_handler_runs_its_claim_lets_a_duplicate_run_beside_it() {
    in_time(async {
        let service = Service::redis(Router::new()).await;
        let first = start(&service).await;
        let server = redis(&service);
        let mut connection = server.connection().await;
        let info: redis::InfoDict = redis::cmd("INFO").query_async(&mut connection).await.expect("INFO");
        let used: u64 = info.get("used_memory").expect("it is counted");
        server.set("maxmemory-policy", "allkeys-lru").await;
        server.set("maxmemory", &(used + (1 << 20)).to_string()).await;
        let since = Instant::now();
        for number in 0_u64.. {
            if !connection.exists(KEY).await.expect("EXISTS") {
                break;
            }
            assert!(since.elapsed() < PATIENCE, "it is never evicted");
            // Somebody else's data, on the same server.
            let theirs = format!("theirs:{number}");
            connection.set(&theirs, &[0; 10_000]).await.expect("SET");
        }
        server.set("maxmemory", "0").await;
        assert_a_duplicate_runs_beside(&service, first).await;
    })
    .await;
}
