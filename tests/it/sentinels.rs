//! The promise where sentinels say which server is the primary, and what a failover breaks.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use futures_util::future::join_all;
use idem_axum::{BackendErrorKind, RedisBackend};
use idem_core::{ClaimPolicy, Engine, Fingerprint, IdempotencyKey, RecordKey, Scope};
use idem_tests::{Order, Proxy, RedisServer, Sentinels, Service, in_time, until};

const PATH: &str = "/orders/waiting-long";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_in_step_takes_over_records_claims_and_waiters() {
    in_time(async {
        let mut redis = Sentinels::start().await;
        let backend = RedisBackend::connect(&redis.url()).await.expect("there is a primary");
        let service = Service::start(backend, Router::new(), None).await;
        let call = |key: &str, order: &Order| service.client.order_at(PATH, key, order).send();
        let first = call("done", &Order::new("done")).await;
        let order = Order::new("held").held();
        let running = tokio::spawn(call("held", &order));
        service.app.wait_until_started(2).await;
        let waiting = tokio::spawn(call("held", &order));
        until("a duplicate waits", async || redis.primary.channels().await == 1).await;
        redis.replicate().await;

        redis.fail_over().await;

        until("the replica is used", async || {
            call("new", &Order::new("new")).await.status == StatusCode::CREATED
        })
        .await;
        // On a busy machine a call may still be refused at its deadline, but nothing is ever run again.
        until("what was done is known", async || {
            let again = call("done", &Order::new("done")).await;
            let is_known = again.status != StatusCode::SERVICE_UNAVAILABLE;
            if is_known {
                again.assert_replays(&first);
            }
            is_known
        })
        .await;
        until("the duplicate waits at the replica", async || {
            redis.replica.channels().await == 1
        })
        .await;
        service.app.open_gate();
        let first = running.await.expect("no panic");
        assert!(!first.says_not_stored(), "{first:?}");
        waiting.await.expect("no panic").assert_replays(&first);
        assert_eq!(service.app.executions("held"), 1);
    })
    .await;
}

/// Asking a sentinel that says nothing takes longer than the deadline of a call, so finding the primary has to go on
/// when the calls that wait for it are given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_that_hangs_does_not_keep_the_primary_from_being_found() {
    in_time(async {
        let redis = Sentinels::start().await;
        let backend = RedisBackend::connect(&redis.url()).await.expect("there is a primary");
        let engine = Engine::new(backend).with_deadline(Duration::from_millis(300));
        redis.freeze_the_first();
        redis.primary.tell("CLIENT KILL TYPE normal SKIPME yes").await;

        // Many at a time, none of which waits for long.
        let keys = AtomicU32::new(0);
        until("a claim is made", async || {
            let claim = || async {
                let number = keys.fetch_add(1, Ordering::Relaxed);
                let key = RecordKey::new("o", &Scope::global(), &IdempotencyKey::of(&number)).expect("a valid key");
                let policy = ClaimPolicy::new(Duration::from_mins(1));
                engine.claim(&key, Fingerprint::NONE, &policy).await.is_ok()
            };
            join_all((0..8).map(|_| claim())).await.contains(&true)
        })
        .await;
    })
    .await;
}

/// IDEM-1 ends where the primary's last writes do: no Redis can promise more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_loses_a_claim_lets_its_handler_run_twice() {
    in_time(async {
        let primary = RedisServer::start().await;
        let link = Proxy::start(primary.address()).await;
        let port = link.address.port().to_string();
        let follow = ["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
        let replica = RedisServer::start_with(&follow).await;
        let before = Service::start(
            RedisBackend::connect(&primary.url()).await.expect("it answers"),
            Router::new(),
            None,
        )
        .await;
        let kept = before.client.order("kept", &Order::new("kept")).send().await;
        replica.wait_for_keys(1).await;
        link.silence_connections();
        let lost = before.client.order("lost", &Order::new("lost")).send().await;
        assert!(!lost.says_not_stored(), "the primary has it");

        let mut promote = redis::cmd("REPLICAOF");
        promote.arg("NO").arg("ONE");
        promote
            .exec_async(&mut replica.connection().await)
            .await
            .expect("it obeys");
        drop(primary);
        let after = Service::start(
            RedisBackend::connect(&replica.url()).await.expect("it answers"),
            Router::new(),
            None,
        )
        .await;

        after
            .client
            .order("kept", &Order::new("kept"))
            .send()
            .await
            .assert_replays(&kept);
        let again = after.client.order("lost", &Order::new("lost")).send().await;
        assert!(!again.is_replay());
        assert_eq!((before.app.executions("lost"), after.app.executions("lost")), (1, 1));
        assert_eq!((before.app.executions("kept"), after.app.executions("kept")), (1, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_no_sentinel_knows_is_a_clear_error() {
    let redis = Sentinels::start().await;
    let unknown = redis.url().replace("/orders", "/invoices");
    let error = RedisBackend::connect(&unknown).await.expect_err("nobody watches it");
    assert_eq!(error.kind(), BackendErrorKind::Unavailable, "{error:?}");
    let nameless = redis.url().replace("/orders", "");
    let error = RedisBackend::connect(&nameless).await.expect_err("which primary?");
    assert_eq!(error.kind(), BackendErrorKind::Config, "{error:?}");
}
