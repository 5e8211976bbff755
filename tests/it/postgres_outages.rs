//! IDEM-13 on Postgres: killed, restarted, frozen, silent, and out of connections.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use idem_axum::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use idem_axum::{BackendErrorKind, PostgresBackend, sqlx};
use idem_core::{
    Acquisition, Backend as _, Claim, ClaimPolicy, Completion, Fenced, Fingerprint, IdempotencyKey, RecordKey, Scope,
};
use idem_tests::{Answer, Order, PostgresServer, Proxy, Service, in_time, until};
use tokio::task::JoinSet;

/// A service on a server of its own, for the test to do anything to.
async fn service() -> (Service, PostgresServer) {
    let server = PostgresServer::start().await;
    let (backend, _schema) = server.backend().await;
    (Service::start(backend, Router::new(), None).await, server)
}

fn assert_unavailable(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert_eq!(answer.problem(), "backend-unavailable");
    assert!(answer.headers.contains_key("retry-after"));
}

/// Sends an order until it is carried out or replayed.
async fn insist(service: &Service, key: &str) -> Answer {
    loop {
        let answer = service.client.order(key, &Order::new(key)).send().await;
        match answer.status {
            StatusCode::CREATED => return answer,
            // Its claim was given up in an outage and is being released, or its outcome is about to be recorded.
            StatusCode::CONFLICT => assert_eq!(answer.problem(), "in-flight"),
            _ => assert_unavailable(&answer),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_is_a_503_and_comes_back_with_everything_it_had() {
    in_time(async {
        let (service, mut server) = service().await;
        let first = service.client.order("before", &Order::new("before")).send().await;
        server.kill();
        for _ in 0..3 {
            assert_unavailable(&service.client.order("k", &Order::new("k")).send().await);
        }
        assert_eq!(service.app.executions("k"), 0);
        let error = service.idempotency.check().await.expect_err("it is not ready");
        assert!(error.is_transient(), "{error}");
        server.restart().await;
        assert_eq!(insist(&service, "k").await.json()["execution"], 1);
        let replay = service.client.order("before", &Order::new("before")).send().await;
        replay.assert_replays(&first);
        service.idempotency.check().await.expect("it is ready again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idem_13_killed_and_restarted_under_load_no_order_is_lost_and_none_runs_twice() {
    in_time(async {
        const ORDERS: usize = 40;
        let (service, mut server) = service().await;
        let service = std::sync::Arc::new(service);
        let mut clients = JoinSet::new();
        for client in 0..8 {
            let service = service.clone();
            clients.spawn(async move {
                for order in 0..ORDERS {
                    insist(&service, &format!("{client}-{order}")).await;
                }
            });
        }
        for kill in 1..=3 {
            service.app.wait_until_started(kill * 70).await;
            server.kill();
            server.restart().await;
        }
        clients.join_all().await;
        service.idempotency.drain().await;
        for client in 0..8 {
            for order in 0..ORDERS {
                let key = format!("{client}-{order}");
                assert_eq!(service.app.executions(&key), 1, "{key}");
                let retry = service.client.order(&key, &Order::new(&key)).send().await;
                assert!(retry.is_replay(), "{retry:?}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_a_503_within_the_deadline_and_an_outcome_is_recorded_once_it_thaws() {
    in_time(async {
        let (service, server) = service().await;
        let order = Order::new("o").held();
        let first = tokio::spawn(service.client.order("k", &order).send());
        service.app.wait_until_started(1).await;
        server.freeze();
        // As often as the pool has connections, and then some.
        for _ in 0..2 {
            let mut calls = JoinSet::new();
            for key in 0..10 {
                calls.spawn(service.client.order(&format!("{key}"), &Order::new("other")).send());
            }
            calls.join_all().await.iter().for_each(assert_unavailable);
        }
        service.app.open_gate();
        let first = first.await.expect("no panic");
        assert_eq!(first.status, StatusCode::CREATED);
        assert!(first.says_not_stored());
        server.thaw();
        service.idempotency.drain().await;
        let retry = service.client.order("k", &order).send().await;
        assert!(retry.is_replay(), "{retry:?}");
        assert_eq!((service.app.executions("o"), service.app.executions("other")), (1, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_is_to_be_migrated_nobody_waits_for_one_that_was_cut_off_while_it_migrated() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (backend, schema) = server.backend().await;
        let held = "SELECT pg_advisory_xact_lock(hashtextextended('\"{}\".\"idem_records\"_migrations', 0))";
        let _cut_off = server.hold(&held.replace("{}", &schema)).await;
        backend.migrate().await.expect("nothing is to be done");
    })
    .await;
}

/// What a firewall does to connections that it has forgotten: nothing comes back, and nothing says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_have_gone_silent_are_given_up_and_replaced() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (_, schema) = server.backend().await;
        let proxy = Proxy::start(server.address()).await;
        let url = format!("postgres://postgres@{}/postgres", proxy.address);
        let pool = PgPoolOptions::new().connect(&url).await.expect("the server answers");
        let backend = PostgresBackend::new(pool).with_schema(&schema).with_connections(1);
        let service = Service::start(backend, Router::new(), None).await;
        assert_eq!(insist(&service, "1").await.status, StatusCode::CREATED);
        proxy.silence_connections();
        assert_unavailable(&service.client.order("2", &Order::new("2")).send().await);
        assert_eq!(insist(&service, "2").await.json()["execution"], 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_were_closed_while_they_were_idle_cost_no_request() {
    in_time(async {
        let (service, server) = service().await;
        for key in ["before", "after"] {
            let answer = service.client.order(key, &Order::new(key)).send().await;
            assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
            let others = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
            server
                .execute(&format!("SELECT pg_terminate_backend(pid) {others}"))
                .await;
            until("they are closed", async || {
                server.query::<i64>(&format!("SELECT count(*) {others}")).await == 0
            })
            .await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_the_server_gives_up_is_a_timeout_and_can_be_repeated() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (_, schema) = server.backend().await;
        let options: PgConnectOptions = server.url().parse().expect("a valid URL");
        let pool = PgPoolOptions::new().connect_lazy_with(options.options([("statement_timeout", "50")]));
        let backend = PostgresBackend::new(pool).with_schema(&schema);
        let key = RecordKey::new("o", &Scope::global(), &IdempotencyKey::of("k")).expect("a valid key");
        let claim = Claim::first(Fingerprint::NONE, &ClaimPolicy::new(Duration::from_mins(10)));
        assert_eq!(
            backend.claim(&key, &claim).await.expect("claims"),
            Acquisition::Acquired
        );
        let mut holder = server.connection().await;
        let hold = format!("BEGIN; SELECT FROM {schema}.idem_records FOR UPDATE");
        sqlx::raw_sql(sqlx::AssertSqlSafe(hold))
            .execute(&mut holder)
            .await
            .expect("the row is there");
        let error = backend.complete(&key, &claim, &Completion::NotStored, claim.ttl).await;
        let error = error.expect_err("somebody holds the row");
        assert_eq!(error.kind(), BackendErrorKind::Timeout, "{error:?}");
        sqlx::raw_sql("COMMIT").execute(&mut holder).await.expect("COMMIT");
        let completed = backend.complete(&key, &claim, &Completion::NotStored, claim.ttl).await;
        assert_eq!(completed.expect("nobody holds it"), Fenced::Applied);
    })
    .await;
}
