//! The promise on a Redis Cluster: three primaries, slots that move, a primary that is lost.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use idem_axum::redis::ProtocolVersion;
use idem_axum::redis::cluster::ClusterClient;
use idem_axum::redis::cluster_read_routing::RandomReplicaStrategy;
use idem_axum::{BackendErrorKind, RedisBackend};
use idem_core::{Acquisition, Backend as _, Claim, ClaimPolicy, Fenced, Fingerprint, IdempotencyKey, RecordKey, Scope};
use idem_tests::{Answer, Order, Process, RedisCluster, Service, in_time, until};
use reqwest::Method;
use tokio::sync::watch;
use tokio::task::JoinSet;

const PATH: &str = "/orders/waiting-long";

/// What the record of an order under `key` is called in Redis.
fn record(key: &str) -> String {
    format!("idem:{{POST%20/orders/waiting-long:acme:{key}}}")
}

async fn on(cluster: &RedisCluster) -> Service {
    let backend = RedisBackend::connect(&cluster.url())
        .await
        .expect("the cluster answers");
    Service::start(backend, Router::new(), None).await
}

/// Keys of records that one primary has, as many as asked for.
async fn keys_of(cluster: &RedisCluster, primary: usize, count: usize) -> Vec<String> {
    let mut keys = Vec::new();
    for number in 0.. {
        let key = format!("k{number}");
        if cluster.owner(&record(&key)).await == primary {
            keys.push(key);
        }
        if keys.len() == count {
            break;
        }
    }
    keys
}

fn send(service: &Service, key: &str, order: &Order, count: usize) -> JoinSet<Answer> {
    let call = || service.client.order_at(PATH, key, order).send();
    (0..count).map(|_| call()).collect()
}

/// One of the answers is the first one, and the others are its replays.
async fn assert_one_answer(calls: JoinSet<Answer>) {
    let mut answers = calls.join_all().await;
    let first = answers.iter().position(|answer| !answer.is_replay());
    let first = answers.remove(first.expect("one was executed"));
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    for answer in answers {
        answer.assert_replays(&first);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_wait_on_every_shard_over_two_processes() {
    in_time(async {
        let cluster = RedisCluster::start().await;
        let processes = [(); 2].map(|()| Process::start(env!("CARGO_BIN_EXE_server"), &cluster.url()));
        let mut calls = Vec::new();
        for number in 0..12 {
            let order = Order::new(&format!("o{number}")).held();
            let each = processes.iter().cycle().take(4);
            calls.push(
                each.map(|process| process.client.order_at(PATH, &format!("k{number}"), &order).send())
                    .collect::<JoinSet<_>>(),
            );
        }
        // Each key is waited for on the primary that has it, and nowhere else.
        until("all wait", async || {
            cluster.channels().await.iter().sum::<usize>() == 12
        })
        .await;
        assert!(cluster.channels().await.iter().all(|channels| *channels > 0));
        for process in &processes {
            process.client.call(Method::POST, "/gate").send().await;
        }
        for calls in calls {
            assert_one_answer(calls).await;
        }
        until("nobody listens any more", async || {
            cluster.channels().await.iter().sum::<usize>() == 0
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_follow_a_slot_that_moves_while_a_handler_runs() {
    in_time(async {
        let cluster = RedisCluster::start().await;
        let service = on(&cluster).await;
        let order = Order::new("o").held();
        let key = record("k");
        let from = cluster.owner(&key).await;
        let to = (from + 1) % 3;
        let calls = send(&service, "k", &order, 5);
        until("they wait", async || cluster.channels().await[from] == 1).await;

        cluster.start_moving(&key, from, to).await;
        cluster.finish_moving(&key, from, to).await;

        until("they wait where the record is now", async || {
            let channels = cluster.channels().await;
            (channels[from], channels[to]) == (0, 1)
        })
        .await;
        service.app.open_gate();
        assert_one_answer(calls).await;
        assert_eq!(service.app.executions("o"), 1);
        assert!(send(&service, "k", &order, 1).join_all().await[0].is_replay());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_is_half_way_to_another_primary_is_served_by_both() {
    in_time(async {
        let cluster = RedisCluster::start().await;
        let service = on(&cluster).await;
        let key = record("k");
        let from = cluster.owner(&key).await;
        let to = (from + 1) % 3;
        // What is not there yet goes to the new primary, which knows no script.
        cluster.start_moving(&key, from, to).await;

        let first = service.client.order_at(PATH, "k", &Order::new("o")).send().await;
        assert_eq!(first.status, StatusCode::CREATED);
        assert!(!first.says_not_stored());
        let replay = service.client.order_at(PATH, "k", &Order::new("o")).send().await;
        replay.assert_replays(&first);

        cluster.finish_moving(&key, from, to).await;
        let replay = service.client.order_at(PATH, "k", &Order::new("o")).send().await;
        replay.assert_replays(&first);
        assert_eq!(service.app.executions("o"), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_primary_is_a_503_for_its_keys_alone_until_its_replica_takes_over() {
    in_time(async {
        let cluster = RedisCluster::start_with_replicas().await;
        let service = on(&cluster).await;
        let [done, held, new] = keys_of(&cluster, 0, 3).await.try_into().expect("three");
        let elsewhere = keys_of(&cluster, 1, 1).await.remove(0);
        let first = service.client.order_at(PATH, &done, &Order::new("done")).send().await;
        let order = Order::new("held").held();
        let calls = send(&service, &held, &order, 3);
        until("they wait", async || cluster.channels().await[0] == 1).await;
        cluster.replicate(0).await;

        cluster.kill(0);
        let refused = service.client.order_at(PATH, &new, &Order::new("new")).send().await;
        assert_eq!(refused.problem(), "backend-unavailable");
        let other = service
            .client
            .order_at(PATH, &elsewhere, &Order::new("other"))
            .send()
            .await;
        assert_eq!(other.status, StatusCode::CREATED);

        cluster.promote(0).await;
        until("the replica is used", async || {
            let retry = service.client.order_at(PATH, &new, &Order::new("new")).send().await;
            retry.status == StatusCode::CREATED
        })
        .await;
        let replay = service.client.order_at(PATH, &done, &Order::new("done")).send().await;
        replay.assert_replays(&first);
        service.app.open_gate();
        assert_one_answer(calls).await;
        assert_eq!(service.app.executions("held"), 1);
        assert_eq!(service.app.executions("new"), 1);
    })
    .await;
}

/// Its connections stay open and silent, which the cluster client never minds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_hangs_is_left_for_its_replica_though_other_shards_answer() {
    in_time(async {
        let cluster = RedisCluster::start_with_replicas().await;
        let service = on(&cluster).await;
        let held = keys_of(&cluster, 0, 1).await.remove(0);
        let elsewhere = keys_of(&cluster, 1, 1).await.remove(0);
        let order = Order::new("held").held();
        let calls = send(&service, &held, &order, 3);
        until("they wait", async || cluster.channels().await[0] == 1).await;
        cluster.replicate(0).await;

        cluster.freeze(0);
        cluster.promote(0).await;
        // The others answer all the time.
        let (client, stop) = (service.client.clone(), watch::Sender::new(()));
        let mut stopped = stop.subscribe();
        let traffic = tokio::spawn(async move {
            let order = Order::new("elsewhere");
            while !stopped.has_changed().unwrap_or(true) {
                let answer = client.order_at(PATH, &elsewhere, &order).send().await;
                assert_ne!(
                    answer.status,
                    StatusCode::OK,
                    "it is a 201 or, while a link opens, a 503"
                );
            }
            stopped.mark_unchanged();
        });

        until("a new request of the shard runs", async || {
            let retry = service.client.order_at(PATH, &held, &Order::new("other")).send().await;
            retry.problem() == "key-reused"
        })
        .await;
        until("they wait at the replica", async || {
            cluster.channels_of_replicas().await == 1
        })
        .await;
        stop.send_replace(());
        traffic.await.expect("no panic");
        service.app.open_gate();
        assert_one_answer(calls).await;
        assert_eq!(service.app.executions("held"), 1);
    })
    .await;
}

/// As when tests, each with a runtime of its own, share a backend.
#[test]
fn a_backend_outlives_the_runtime_that_it_was_made_on() {
    let runtime = || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(1).enable_all().build().expect("a runtime")
    };
    let (first, second) = (runtime(), runtime());
    let cluster = first.block_on(RedisCluster::start());
    let backend = first
        .block_on(RedisBackend::connect(&cluster.url()))
        .expect("the cluster answers");
    let key = RecordKey::new("o", &Scope::global(), &IdempotencyKey::of("k")).expect("a valid key");
    let claim = Claim::first(Fingerprint::NONE, &ClaimPolicy::new(Duration::from_mins(1)));
    let listening = first.block_on(backend.changed(&key)).expect("it is subscribed");
    drop((first, listening));

    second.block_on(in_time(async {
        assert_eq!(backend.claim(&key, &claim).await.expect("SET"), Acquisition::Acquired);
        let listening = backend.changed(&key).await.expect("it is subscribed");
        assert_eq!(backend.release(&key, &claim).await.expect("DEL"), Fenced::Applied);
        listening.await;
    }));
}

/// Replicas lag, so what is asked for while a key changes has to come from its primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_from_replicas_reads_records_from_primaries() {
    in_time(async {
        let cluster = RedisCluster::start_with_replicas().await;
        let client = ClusterClient::builder(cluster.urls().to_vec())
            .use_protocol(ProtocolVersion::RESP3)
            .read_routing_strategy(RandomReplicaStrategy)
            .build()
            .expect("a client");
        let backend = RedisBackend::connect_with(client).await.expect("the cluster answers");
        let service = Service::start(backend, Router::new(), None).await;
        let order = Order::new("o").held();
        let calls = send(&service, "k", &order, 20);
        until("they wait", async || {
            cluster.channels().await.iter().sum::<usize>() == 1
        })
        .await;
        service.app.open_gate();
        assert_one_answer(calls).await;
        assert_eq!(service.app.executions("o"), 1);
        assert_eq!(cluster.reads_of_replicas().await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_client_that_cannot_be_told_of_changes_is_refused_at_start() {
    let cluster = RedisCluster::start().await;
    let client = ClusterClient::new(cluster.urls().to_vec()).expect("a client");
    let refused = RedisBackend::connect_with(client).await.expect_err("it speaks RESP2");
    assert_eq!(refused.kind(), BackendErrorKind::Config, "{refused:?}");
}

/// The permissions that the documentation of `idem-redis` adds for a cluster are enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_permissions_are_enough() {
    in_time(async {
        let cluster = RedisCluster::start().await;
        let documented = |start: &str| {
            let mut lines = include_str!("../../idem-redis/src/lib.rs").lines();
            let line = lines.find(|line| line.starts_with(&format!("//! {start}")));
            line.expect("the list is there").trim_start_matches("//! ").to_owned()
        };
        let rules = format!(
            "ACL SETUSER app on >pw {} {} {}",
            documented("~idem:*"),
            documented("+cluster"),
            documented("+hset")
        );
        for node in 0..3 {
            cluster.query::<()>(node, &rules).await;
        }
        let url = cluster.url().replace("//", "//app:pw@");
        let backend = RedisBackend::connect(&url).await.expect("it may connect");
        for node in 0..3 {
            // Without +info, the check at start is skipped.
            cluster.query::<()>(node, "ACL LOG RESET").await;
        }
        for number in 0..6 {
            crate::redis_steps::use_steps(&backend, &number.to_string()).await;
        }
        let service = Service::start(backend, Router::new(), None).await;
        // One record of each kind of place: on every primary, and in a slot that is on its way.
        let mut calls = Vec::new();
        for number in 0..12 {
            let key = format!("k{number}");
            calls.push(send(&service, &key, &Order::new(&key).held(), 2));
        }
        until("all wait", async || {
            cluster.channels().await.iter().sum::<usize>() == 12
        })
        .await;
        service.app.open_gate();
        for calls in calls {
            assert_one_answer(calls).await;
        }
        until("all have left", async || {
            cluster.channels().await.iter().sum::<usize>() == 0
        })
        .await;
        let moving = record("moving");
        let from = cluster.owner(&moving).await;
        cluster.start_moving(&moving, from, (from + 1) % 3).await;
        let answer = service
            .client
            .order_at(PATH, "moving", &Order::new("moving"))
            .send()
            .await;
        assert_eq!(answer.status, StatusCode::CREATED);
        assert!(!answer.says_not_stored());
        for node in 0..3 {
            let log: Vec<redis::Value> = cluster.query(node, "ACL LOG").await;
            let denied = |entry: &&redis::Value| !format!("{entry:?}").contains("client|setinfo");
            let denied: Vec<_> = log.iter().filter(denied).collect();
            assert!(denied.is_empty(), "something was denied: {denied:?}");
        }
    })
    .await;
}
