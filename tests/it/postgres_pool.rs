//! IDEM-16 and IDEM-20: the Postgres backend works over connections of its own, whatever happens to the application's.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::routing::post;
use axum::{Extension, RequestPartsExt as _, Router};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use idem_axum::sqlx::pool::PoolConnection;
use idem_axum::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use idem_axum::sqlx::{self, AssertSqlSafe, PgPool, Postgres};
use idem_axum::{PostgresBackend, Transaction, idempotent};
use idem_core::{
    Acquisition, Backend as _, Claim, ClaimPolicy, Completion, Fenced, Fingerprint, IdempotencyKey, RecordKey, Scope,
};
use idem_tests::{App, Order, PostgresServer, Proxy, Service, in_time, until};
use reqwest::Method;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

#[idempotent(ttl = "24h", scope = global)]
async fn pay() -> StatusCode {
    StatusCode::CREATED
}

fn record_key(key: &str) -> RecordKey {
    RecordKey::new("o", &Scope::global(), &IdempotencyKey::of(key)).expect("a valid key")
}

fn claim() -> Claim {
    Claim::first(Fingerprint::NONE, &ClaimPolicy::new(Duration::from_mins(10)))
}

async fn acquire(backend: &PostgresBackend, key: &str) {
    let claimed = backend.claim(&record_key(key), &claim()).await;
    assert_eq!(claimed.expect("a healthy server"), Acquisition::Acquired, "{key}");
}

/// A pool of so many connections, and a backend on it with its table in a schema of its own.
async fn pool_and_backend(server: &PostgresServer, connections: u32) -> (PgPool, PostgresBackend, String) {
    let (_, schema) = server.backend().await;
    let options = PgPoolOptions::new().max_connections(connections);
    let pool = options.connect(&server.url()).await.expect("the server answers");
    let backend = PostgresBackend::new(pool.clone()).with_schema(&schema);
    (pool, backend, schema)
}

/// Sends so many requests with new keys, eight at a time, and says how many were not answered with 201, and how many
/// records there are afterwards.
async fn pay_times(service: &Service, server: &PostgresServer, schema: &str, times: usize) -> (usize, i64) {
    let at_once = Arc::new(Semaphore::new(8));
    let calls = (0..times).map(|key| {
        let (call, at_once) = (
            service.client.call(Method::POST, "/pay").key(&key.to_string()),
            at_once.clone(),
        );
        async move {
            let _turn = at_once.acquire().await.expect("it is never closed");
            let answer = call.send().await;
            answer.status == 201 && !answer.says_not_stored()
        }
    });
    let refused = join_all(calls).await.iter().filter(|paid| !**paid).count();
    let recorded = format!("SELECT count(*) FROM {schema}.idem_records WHERE state = 2");
    (refused, server.query(&recorded).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_applications_pool_exhausted_a_thousand_keys_are_claimed_and_completed() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (pool, backend, schema) = pool_and_backend(&server, 2).await;
        let service = Service::start(backend, Router::new().route("/pay", post(pay)), None).await;
        let _taken = (pool.acquire().await, pool.acquire().await);
        assert_eq!(pay_times(&service, &server, &schema, 1000).await, (0, 1000));
    })
    .await;
}

/// What a part of the application may leave on a connection of its pool.
const POISONS: [&str; 7] = [
    "BEGIN",
    "BEGIN; SELECT nothing",
    "SET ROLE nobody_at_all",
    "SET default_transaction_read_only = on",
    "SET default_transaction_isolation = 'serializable'",
    "SET statement_timeout = 1",
    "SET search_path = ''",
];

async fn poison(pool: &PgPool, poison: &str) {
    let mut connection = pool.acquire().await.expect("it is free");
    // One of them fails, and that is its poison.
    let _ = sqlx::raw_sql(AssertSqlSafe(poison.to_owned()))
        .execute(&mut *connection)
        .await;
}

async fn make_role(server: &PostgresServer) {
    let make = "DO $$ BEGIN CREATE ROLE nobody_at_all; EXCEPTION WHEN duplicate_object THEN NULL; END $$";
    server.execute(make).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_others_leave_on_a_connection_of_the_pool_a_thousand_keys_are_claimed_and_completed() {
    in_time(async {
        let server = PostgresServer::shared().await;
        make_role(&server).await;
        for left in POISONS {
            let (pool, backend, schema) = pool_and_backend(&server, 1).await;
            let service = Service::start(backend, Router::new().route("/pay", post(pay)), None).await;
            poison(&pool, left).await;
            let paid = pay_times(&service, &server, &schema, 1000 / POISONS.len() + 1).await;
            assert_eq!(paid, (0, 143), "{left}");
            service.idempotency.check().await.expect(left);
        }
    })
    .await;
}

/// As in axum's example with sqlx: an argument that is a connection of the pool.
struct Connection(#[expect(dead_code, reason = "it is held")] PoolConnection<Postgres>);

impl FromRequestParts<App> for Connection {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, StatusCode> {
        let pool = parts.extract::<Extension<PgPool>>().await;
        let Extension(pool) = pool.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        pool.acquire()
            .await
            .map(Self)
            .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
    }
}

#[idempotent(ttl = "24h", scope = global)]
async fn holding(_: Connection) -> StatusCode {
    tokio::time::sleep(Duration::from_millis(20)).await;
    StatusCode::CREATED
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arguments_that_hold_connections_of_the_pool_do_not_starve_their_own_claims() {
    in_time(async {
        let server = PostgresServer::shared().await;
        for connections in [1, 5] {
            let (pool, backend, _) = pool_and_backend(&server, connections).await;
            let routes = Router::new().route("/holding", post(holding)).layer(Extension(pool));
            let service = Service::start(backend, routes, None).await;
            let calls = (0..50).map(|key| {
                service
                    .client
                    .call(Method::POST, "/holding")
                    .key(&key.to_string())
                    .send()
            });
            for answer in join_all(calls).await {
                assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
            }
        }
    })
    .await;
}

#[derive(Clone, Default)]
struct Gate {
    begun: Arc<Notify>,
    go_on: Arc<Notify>,
}

#[idempotent(ttl = "24h", scope = global, lease = "1s")]
async fn in_transaction(
    Extension(gate): Extension<Gate>,
    mut transaction: Transaction,
) -> Result<StatusCode, StatusCode> {
    let connection = transaction.begin().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    sqlx::query("SELECT 1")
        .execute(connection)
        .await
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    gate.begun.notify_one();
    gate.go_on.notified().await;
    Ok(StatusCode::CREATED)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_renewed_while_every_connection_of_the_pool_is_in_a_transaction() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (_pool, backend, schema) = pool_and_backend(&server, 2).await;
        let gate = Gate::default();
        let routes = Router::new().route("/transaction", post(in_transaction)).layer(Extension(gate.clone()));
        let service = Service::start(backend, routes, None).await;
        let send = |key: &str| tokio::spawn(service.client.call(Method::POST, "/transaction").key(key).send());
        let running = [send("1"), send("2")];
        gate.begun.notified().await;
        gate.begun.notified().await;
        // Two more than one lease holds.
        let renewed = format!(
            "SELECT count(*) FROM {schema}.idem_records AS record JOIN {schema}.idem_records_leases AS lease USING (id, token) \
             WHERE lease.lease_until > record.lease_until + interval '1 second'"
        );
        until("both are renewed", async || server.query::<i64>(&renewed).await == 2).await;
        let duplicate = service.client.call(Method::POST, "/transaction").key("1").send().await;
        assert_eq!(duplicate.problem(), "in-flight");
        gate.go_on.notify_waiters();
        for answer in running {
            assert_eq!(answer.await.expect("no panic").status, StatusCode::CREATED);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_no_more_connections_than_were_set_however_many_calls_there_are() {
    in_time(async {
        let server = PostgresServer::start().await;
        let options: PgConnectOptions = server.url().parse().expect("a valid URL");
        let pool = PgPoolOptions::new().connect_lazy_with(options.application_name("counted"));
        let backend = PostgresBackend::new(pool).with_connections(3);
        backend.migrate().await.expect("a table");
        let opened = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'counted'";
        for round in 0..5 {
            let keys: Vec<_> = (0..40).map(|key| format!("{round}-{key}")).collect();
            join_all(keys.iter().map(|key| acquire(&backend, key))).await;
            assert!(server.query::<i64>(opened).await <= 3);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_given_up_while_it_waits_or_connects_costs_no_connection() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (_, schema) = server.backend().await;
        let pool = PgPoolOptions::new().connect_lazy(&server.url()).expect("a valid URL");
        let backend = PostgresBackend::new(pool).with_schema(&schema).with_connections(1);
        // Polled once and dropped: nothing can have been answered yet.
        for key in ["a", "b", "c"] {
            assert!(Box::pin(acquire(&backend, key)).now_or_never().is_none());
        }
        acquire(&backend, "next").await;
    })
    .await;
}

/// Every connection that was open is of no use any more after a restart; the first of them says so for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_were_closed_cost_no_call() {
    in_time(async {
        let server = PostgresServer::start().await;
        let backend = PostgresBackend::new(server.pool().await);
        backend.migrate().await.expect("a table");
        for round in 0..3 {
            let keys: Vec<_> = (0..10).map(|key| format!("{round}-{key}")).collect();
            join_all(keys.iter().map(|key| acquire(&backend, key))).await;
            server.kill_clients().await;
        }
        backend.check().await.expect("it is healthy");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_role_was_refused_is_replaced_once_the_permission_is_there() {
    in_time(async {
        let server = PostgresServer::start().await;
        let (_, schema) = server.backend().await;
        server.execute("CREATE ROLE app LOGIN").await;
        let url = server.url().replace("postgres@", "app@");
        let pool = PgPoolOptions::new().connect_lazy(&url).expect("a valid URL");
        let backend = PostgresBackend::new(pool).with_schema(&schema);
        backend
            .claim(&record_key("k"), &claim())
            .await
            .expect_err("no permission");
        server
            .execute(&format!(
                "ALTER SCHEMA {schema} OWNER TO app; ALTER TABLE {schema}.idem_records OWNER TO app; \
                 ALTER TABLE {schema}.idem_records_leases OWNER TO app"
            ))
            .await;
        acquire(&backend, "k").await;
    })
    .await;
}

/// What is rotated on the pool reaches the connections of the backend's own, the one that waiters rely on included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotated_credentials_reach_claims_and_waiters() {
    in_time(async {
        let server = PostgresServer::start().await;
        server
            .execute("CREATE ROLE one LOGIN SUPERUSER; CREATE ROLE two LOGIN SUPERUSER")
            .await;
        let options: PgConnectOptions = server.url().parse().expect("a valid URL");
        let pool = PgPoolOptions::new().connect_lazy_with(options.clone().username("one"));
        let backend = PostgresBackend::new(pool.clone());
        backend.migrate().await.expect("a table");
        let (key, mine) = (record_key("k"), claim());
        backend.claim(&key, &mine).await.expect("claims");
        drop(backend.changed(&key).await.expect("listens"));
        pool.set_connect_options(options.username("two"));
        server.execute("ALTER ROLE one NOLOGIN").await;
        server.kill_clients().await;
        let changed = loop {
            // Who asks before it is noticed that the connection was closed is refused once.
            let Ok(changed) = backend.changed(&key).await else {
                continue;
            };
            let by_two = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'two' AND pid IN \
                 (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock')";
            if server.query::<i64>(by_two).await == 1 {
                break changed;
            }
        };
        let completed = backend.complete(&key, &mine, &Completion::NotStored, mine.ttl).await;
        assert_eq!(completed.expect("completes"), Fenced::Applied);
        changed.await;
    })
    .await;
}

/// A test, or a service that makes a runtime anew.
#[test]
fn on_a_second_runtime_claims_are_claimed_and_waiters_are_told() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
    };
    // The server outlives both.
    let servers = runtime().expect("a runtime");
    let server = servers.block_on(PostgresServer::start());
    let backend = servers.block_on(async {
        let backend = PostgresBackend::new(server.pool().await);
        backend.migrate().await.expect("a table");
        backend
    });
    for round in ["first", "second", "third"] {
        let runtime = runtime().expect("a runtime");
        runtime.block_on(in_time(async {
            let (key, mine) = (record_key(round), claim());
            backend.claim(&key, &mine).await.expect("claims");
            let changed = backend.changed(&key).await.expect("listens");
            until("somebody waits", async || server.waited_for("public").await == 1).await;
            assert_eq!(backend.release(&key, &mine).await.expect("releases"), Fenced::Applied);
            changed.await;
            let left = claim();
            backend.claim(&key, &left).await.expect("claims");
            // Left behind with its runtime.
            let _waiter = backend.changed(&key).await.expect("listens");
        }));
        runtime.shutdown_timeout(Duration::from_secs(1));
        servers.block_on(until("its locks are gone", async || {
            server.waited_for("public").await == 0
        }));
    }
}

/// A claim is not lost on a connection that somebody gave up in the middle of `BEGIN`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_begin_that_was_given_up_swallows_no_claim() {
    in_time(async {
        let server = PostgresServer::start().await;
        let proxy = Proxy::start(server.address()).await;
        let far = format!("postgres://postgres@{}/postgres", proxy.address);
        let options = PgPoolOptions::new().max_connections(1).test_before_acquire(false);
        let pool = options.connect(&far).await.expect("the server answers");
        let backend = PostgresBackend::new(pool.clone());
        backend.migrate().await.expect("a table");
        let routes = Router::new().route("/pay", post(pay));
        let here = Service::start(backend, routes.clone(), None).await;
        let there = Service::start(PostgresBackend::new(server.pool().await), routes, None).await;
        // `BEGIN` is on its way when its future is dropped.
        proxy.slow_down(Duration::from_millis(50));
        assert!(pool.begin().now_or_never().is_none());
        proxy.slow_down(Duration::ZERO);
        let first = here.client.call(Method::POST, "/pay").key("k").send().await;
        assert_eq!(first.status, StatusCode::CREATED);
        let records: i64 = server.query("SELECT count(*) FROM idem_records WHERE state = 2").await;
        assert_eq!(records, 1, "others see it");
        there
            .client
            .call(Method::POST, "/pay")
            .key("k")
            .send()
            .await
            .assert_replays(&first);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_keys_are_waited_for_than_there_are_locks_and_everybody_is_answered() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (_, backend, schema) = pool_and_backend(&server, 2).await;
        let service = Service::start(backend, Router::new(), None).await;
        let mut calls = JoinSet::new();
        let call = |key: u32| {
            let order = Order::new(&key.to_string()).held();
            service
                .client
                .order_at("/orders/waiting-long", &key.to_string(), &order)
                .send()
        };
        // A few at a time, so that no claim takes longer than its deadline.
        for some in 1..=24 {
            let keys = 25 * (some - 1)..25 * some;
            keys.clone().for_each(|key| drop(calls.spawn(call(key))));
            service.app.wait_until_started(25 * some).await;
            keys.for_each(|key| drop(calls.spawn(call(key))));
            let locks = i64::from(25 * some).min(512);
            until("they wait", async || server.waited_for(&schema).await == locks).await;
        }
        service.app.open_gate();
        let answers = calls.join_all().await;
        assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| answer.is_replay()).count(), 600);
    })
    .await;
}
