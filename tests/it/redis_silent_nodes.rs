//! A node of a cluster that is silent costs its own slots, and no others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use idem_axum::redis::Client;
use idem_axum::{RedisBackend, RedisClient, idempotent};
use idem_core::{IdempotencyKey, RecordKey, Scope};
use idem_tests::{App, Order, RedisCluster, Service, until};
use reqwest::Method;
use tokio::task::JoinSet;

/// The node that is frozen.
const SICK: usize = 0;

/// How many requests are sent while it is, 20 ms apart.
const REQUESTS: usize = 750;

#[idempotent(ttl = "24h", scope = global)]
async fn pay() -> StatusCode {
    StatusCode::CREATED
}

async fn service(backend: RedisBackend) -> Service {
    let routes: Router<App> = Router::new().route("/pay", post(pay));
    Service::start(backend, routes, None).await
}

/// Keys of payments: of the node that is frozen, and of the others.
async fn keys(cluster: &RedisCluster) -> (Vec<String>, Vec<String>) {
    let (mut sick, mut healthy) = (Vec::new(), Vec::new());
    for number in 0.. {
        let key = format!("k{number}");
        let record = RecordKey::new("POST /pay", &Scope::global(), &IdempotencyKey::of(&key)).expect("a key");
        let owner = cluster.owner(&format!("idem:{{{}}}", record.as_str())).await;
        if owner == SICK { &mut sick } else { &mut healthy }.push(key);
        if sick.len() >= 30 && healthy.len() >= 60 {
            return (sick, healthy);
        }
    }
    (sick, healthy)
}

/// What became of the requests to healthy nodes, and of those to the silent one.
#[derive(Debug, Default)]
struct Statuses {
    healthy: Vec<StatusCode>,
    sick: Vec<StatusCode>,
    /// A key of the silent one that was not asked for: of those that were, the node may find claims when it goes on.
    sick_key: String,
}

/// Sends requests while a node is silent, every `nth` of them to that one.
async fn send_beside_silence(service: &Service, cluster: &RedisCluster, nth: usize) -> Statuses {
    let (mut sick, healthy) = keys(cluster).await;
    let mut statuses = Statuses {
        sick_key: sick.pop().expect("there are many"),
        ..Statuses::default()
    };
    cluster.freeze(SICK);
    let mut running = JoinSet::new();
    for number in 0..REQUESTS {
        let is_sick = number % nth == 0;
        let key = if is_sick {
            &sick[number / nth % sick.len()]
        } else {
            &healthy[number % healthy.len()]
        };
        let call = service.client.call(Method::POST, "/pay").key(key);
        running.spawn(async move { (is_sick, call.send().await.status) });
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (is_sick, status) in running.join_all().await {
        if is_sick {
            &mut statuses.sick
        } else {
            &mut statuses.healthy
        }
        .push(status);
    }
    statuses
}

fn assert_none_failed(statuses: &[StatusCode]) {
    let failed = statuses.iter().filter(|status| **status != StatusCode::CREATED);
    assert_eq!(failed.count(), 0, "of {}: {statuses:?}", statuses.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_costs_the_other_shards_nothing() {
    let cluster = RedisCluster::start().await;
    let service = service(RedisBackend::connect(&cluster.url()).await.expect("it answers")).await;
    let statuses = send_beside_silence(&service, &cluster, 5).await;
    assert_none_failed(&statuses.healthy);
    let refused = |status: &StatusCode| *status == StatusCode::SERVICE_UNAVAILABLE;
    assert!(statuses.sick.iter().all(refused), "{statuses:?}");
    cluster.thaw(SICK);
    until("its slots are served again", async || {
        service
            .client
            .call(Method::POST, "/pay")
            .key(&statuses.sick_key)
            .send()
            .await
            .status
            == StatusCode::CREATED
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_that_is_seldom_asked_costs_the_other_shards_nothing() {
    let cluster = RedisCluster::start().await;
    let service = service(RedisBackend::connect(&cluster.url()).await.expect("it answers")).await;
    assert_none_failed(&send_beside_silence(&service, &cluster, 50).await.healthy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_costs_the_other_shards_nothing_while_its_replica_takes_its_place() {
    let cluster = RedisCluster::start_with_replicas().await;
    let service = service(RedisBackend::connect(&cluster.url()).await.expect("it answers")).await;
    let statuses = send_beside_silence(&service, &cluster, 5).await;
    assert_none_failed(&statuses.healthy);
    cluster.promote(SICK).await;
    until("the replica is used", async || {
        service
            .client
            .call(Method::POST, "/pay")
            .key(&statuses.sick_key)
            .send()
            .await
            .status
            == StatusCode::CREATED
    })
    .await;
}

/// Given by clients of the application's own in place of a URL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_that_was_named_first_costs_a_new_process_nothing() {
    let cluster = RedisCluster::start().await;
    let (_, healthy) = keys(&cluster).await;
    cluster.freeze(SICK);
    let nodes = cluster
        .urls()
        .iter()
        .map(|url| Client::open(url.as_str()).expect("a URL"));
    let client = RedisClient::cluster(nodes).expect("nodes");
    let service = service(RedisBackend::connect_with(client).await.expect("two nodes answer")).await;
    for key in &healthy {
        let answer = service.client.call(Method::POST, "/pay").key(key).send().await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_on_another_shard_is_told_while_a_node_is_silent() {
    let cluster = RedisCluster::start().await;
    let service = service(RedisBackend::connect(&cluster.url()).await.expect("it answers")).await;
    let (sick, _) = keys(&cluster).await;
    let mut keys = Vec::new();
    for number in 0.. {
        let key = format!("w{number}");
        let record = format!("idem:{{POST%20/orders/waiting-long:acme:{key}}}");
        if cluster.owner(&record).await != SICK {
            keys.push(key);
        }
        if keys.len() == 20 {
            break;
        }
    }
    cluster.freeze(SICK);
    // Somebody asks the silent node all the time.
    let (beside, refused) = (service.client.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = refused.clone();
    let asking = tokio::spawn(async move {
        for key in sick.iter().cycle() {
            let (call, counted) = (beside.call(Method::POST, "/pay").key(key), counted.clone());
            tokio::spawn(async move {
                let is_refused = call.send().await.status == StatusCode::SERVICE_UNAVAILABLE;
                counted.fetch_add(usize::from(is_refused), Ordering::Relaxed);
            });
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let order = Order::new("o").held();
    let call = |key: &str| service.client.order_at("/orders/waiting-long", key, &order).send();
    let firsts: Vec<_> = keys.iter().map(|key| tokio::spawn(call(key))).collect();
    service.app.wait_until_started(20).await;
    let duplicates: Vec<_> = keys.iter().map(|key| tokio::spawn(call(key))).collect();
    until("all wait", async || {
        let channels = [1, 2].map(|node| cluster.query::<Vec<String>>(node, "PUBSUB SHARDCHANNELS"));
        let [one, other] = channels;
        one.await.len() + other.await.len() == 20
    })
    .await;
    until("many have been refused", async || refused.load(Ordering::Relaxed) >= 60).await;
    let opened = Instant::now();
    service.app.open_gate();
    for (first, duplicate) in firsts.into_iter().zip(duplicates) {
        let first = first.await.expect("no panic");
        assert!(!first.says_not_stored(), "{first:?}");
        duplicate.await.expect("no panic").assert_replays(&first);
    }
    let took = opened.elapsed();
    assert!(
        took < Duration::from_secs(4),
        "they were told, and did not find out by themselves: {took:?}"
    );
    assert_eq!(service.app.executions("o"), 20);
    asking.abort();
}
