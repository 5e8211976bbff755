//! IDEM-16 and IDEM-17: transactions whose connection breaks, is slow, or leads to a server that has become another one.

use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::post;
use idem_axum::sqlx::postgres::PgPoolOptions;
use idem_axum::sqlx::{self, PgPool};
use idem_axum::{Backend as _, Idempotency, PostgresBackend, Transaction, idempotent};
use idem_core::{Acquisition, Claim, ClaimPolicy, Completion, Fenced, Fingerprint, IdempotencyKey, RecordKey, Scope};
use idem_tests::{Answer, PostgresServer, Proxy, Service, in_time, until};
use reqwest::Method;
use tokio::time::timeout;

const FAILED: StatusCode = StatusCode::BAD_GATEWAY;

async fn write(transaction: &mut Transaction, entry: &str, setting: &'static str) -> Result<StatusCode, StatusCode> {
    let connection = transaction.begin().await.map_err(|_| FAILED)?;
    let row = sqlx::query("INSERT INTO ledger VALUES ($1)").bind(entry.to_owned());
    row.execute(&mut *connection).await.map_err(|_| FAILED)?;
    sqlx::raw_sql(setting).execute(connection).await.map_err(|_| FAILED)?;
    Ok(StatusCode::CREATED)
}

#[idempotent(ttl = "24h", scope = global, required = false)]
async fn pay(mut transaction: Transaction, entry: String) -> Result<StatusCode, StatusCode> {
    write(&mut transaction, &entry, "").await
}

/// Its commit wants to be on a standby.
#[idempotent(ttl = "24h", scope = global, required = false)]
async fn synchronous(mut transaction: Transaction, entry: String) -> Result<StatusCode, StatusCode> {
    write(&mut transaction, &entry, "SET LOCAL synchronous_commit = on").await
}

/// Has so many milliseconds of patience with its pool.
#[idempotent(ttl = "24h", scope = global)]
async fn impatient(
    Path(patience): Path<u64>,
    mut transaction: Transaction,
    entry: String,
) -> Result<StatusCode, StatusCode> {
    let begun = timeout(Duration::from_millis(patience), async {
        transaction.begin().await.is_ok()
    })
    .await;
    if begun != Ok(true) {
        return Err(StatusCode::GATEWAY_TIMEOUT);
    }
    write(&mut transaction, &entry, "").await
}

/// Its row is written, and it says that it has failed.
#[idempotent(ttl = "24h", scope = global, lease = "1s", after_crash = "refuse")]
async fn failing(mut transaction: Transaction, entry: String) -> StatusCode {
    let _ = write(&mut transaction, &entry, "").await;
    StatusCode::INTERNAL_SERVER_ERROR
}

/// A service whose pool, of so many connections, reaches the server by a proxy; its handlers' tables are on `server`.
async fn service(server: &PostgresServer, proxy: &Proxy, connections: u32) -> (Service, PgPool) {
    server
        .execute("CREATE TABLE IF NOT EXISTS ledger (entry text NOT NULL)")
        .await;
    let url = server
        .url()
        .replace(&server.address().to_string(), &proxy.address.to_string());
    // No sign of life is asked for: the first thing that a connection is sent is BEGIN.
    let options = PgPoolOptions::new()
        .max_connections(connections)
        .test_before_acquire(false);
    let pool = options.connect(&url).await.expect("it answers");
    let backend = PostgresBackend::new(server.pool().await);
    backend.migrate().await.expect("a table");
    let backend = PostgresBackend::new(pool.clone());
    let routes = Router::new()
        .route("/pay", post(pay))
        .route("/synchronous", post(synchronous))
        .route("/impatient/{patience}", post(impatient))
        .route("/failing", post(failing));
    let patient = Idempotency::new(backend).with_deadline(Duration::from_secs(20));
    (Service::wrapped(patient, routes, |router| router).await, pool)
}

async fn send(service: &Service, path: &str, key: Option<&str>) -> Answer {
    let call = service.client.call(Method::POST, path).body("entry");
    match key {
        Some(key) => call.key(key).send().await,
        None => call.send().await,
    }
}

async fn rows(server: &PostgresServer) -> i64 {
    server.query("SELECT count(*) FROM ledger").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_under_a_commit_leaves_it_open_and_a_retry_finds_out() {
    in_time(async {
        let server = PostgresServer::start().await;
        // A commit that wants to be on a standby waits, once it is written here. All others do not want to.
        server.set("synchronous_commit", "local").await;
        server.set("synchronous_standby_names", "nobody").await;
        let proxy = Proxy::start(server.address()).await;
        let (service, _pool) = service(&server, &proxy, 3).await;
        for key in [Some("k"), None] {
            let cut = async {
                let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
                until("it waits", async || server.query::<i64>(waiting).await == 1).await;
                proxy.cut_connections();
                server
                    .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
                    .await;
                until("it is gone", async || server.query::<i64>(waiting).await == 0).await;
            };
            let (answer, ()) = tokio::join!(send(&service, "/synchronous", key), cut);
            assert_eq!(answer.problem(), "not-committed", "{answer:?}");
            assert_eq!(answer.headers.contains_key("retry-after"), key.is_some(), "{answer:?}");
        }
        service.idempotency.drain().await;
        let retry = send(&service, "/synchronous", Some("k")).await;
        assert!(retry.is_replay() && retry.status == StatusCode::CREATED, "{retry:?}");
        assert_eq!(rows(&server).await, 2, "one of each");
    })
    .await;
}

/// IDEM-22: a process that stalls between its record and its commit, or whose line is silent, does not hold the record for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_commit_that_never_comes_locks_its_record_for_seconds_and_not_until_the_server_notices() {
    in_time(async {
        let server = PostgresServer::start().await;
        let backend = PostgresBackend::new(server.pool().await);
        backend.migrate().await.expect("a table");
        let key = RecordKey::new("o", &Scope::global(), &IdempotencyKey::of("k")).expect("a key");
        let claim = Claim::first(Fingerprint::NONE, &ClaimPolicy::new(Duration::from_mins(1)));
        let acquired = backend.claim(&key, &claim).await.expect("the server answers");
        assert_eq!(acquired, Acquisition::Acquired);
        let (tell, told) = std::sync::mpsc::channel();
        let completing = tokio::spawn({
            let (backend, key, claim) = (backend.clone(), key.clone(), claim.clone());
            async move {
                let transaction = backend.begin().await.expect("the server answers");
                let stalled = move || tokio::task::block_in_place(|| told.recv().expect("the test tells"));
                let completion = Completion::NotStored;
                backend
                    .complete_in(transaction, (&key, &claim), (&completion, claim.ttl), stalled)
                    .await
            }
        });
        let locked = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'";
        until("the record is locked", async || server.query::<i64>(locked).await == 1).await;
        // It waits for the lock, and finds the claim as it was.
        let released = backend.release(&key, &claim).await;
        assert_eq!(released.expect("the server answers"), Fenced::Applied);
        tell.send(()).expect("it is stalled");
        assert!(completing.await.expect("no panic").is_err(), "nothing was committed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_begin_that_is_given_up_on_a_slow_line_swallows_nothing_of_others() {
    in_time(async {
        let server = PostgresServer::start().await;
        let proxy = Proxy::start(server.address()).await;
        let (service, pool) = service(&server, &proxy, 1).await;
        let warm = send(&service, "/impatient/10000", Some("warm")).await;
        assert_eq!(warm.status, StatusCode::CREATED, "{warm:?}");
        // Longer than the patience: BEGIN is on its way when it is given up.
        proxy.slow_down(Duration::from_millis(400));
        let before = proxy.bytes_to_server();
        let given_up = send(&service, "/impatient/200", Some("k")).await;
        assert_eq!(given_up.status, StatusCode::GATEWAY_TIMEOUT, "{given_up:?}");
        assert!(proxy.bytes_to_server() > before, "BEGIN was sent");
        proxy.slow_down(Duration::ZERO);
        // Whoever comes next has a connection without a transaction.
        let row = sqlx::query("INSERT INTO ledger VALUES ('of others')");
        row.execute(&pool).await.expect("a connection");
        server.kill_clients().await;
        assert_eq!(rows(&server).await, 2, "the first one's and that of others");
        let retry = send(&service, "/impatient/10000", Some("k")).await;
        assert!(retry.status == StatusCode::CREATED && !retry.is_replay(), "{retry:?}");
        assert_eq!(rows(&server).await, 3);
    })
    .await;
}

/// A failover of which the pool's connections learn nothing: they lead to a server that is a standby now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_a_standby_are_left_and_a_transaction_begins_on_the_primary() {
    in_time(async {
        let server = PostgresServer::start().await;
        let proxy = Proxy::start(server.address()).await;
        let (service, pool) = service(&server, &proxy, 3).await;
        let standby = server.standby().await;
        proxy.lead_to(standby.address());
        proxy.cut_connections();
        // Both kinds of connections lead to the standby.
        let on_the_standby = send(&service, "/pay", Some("k")).await;
        assert_eq!(
            on_the_standby.status,
            StatusCode::SERVICE_UNAVAILABLE,
            "{on_the_standby:?}"
        );
        let mut held = Vec::new();
        until("the pool leads to the standby", async || {
            let reads = sqlx::query_scalar("SELECT pg_is_in_recovery()");
            matches!(reads.fetch_one(&pool).await, Ok(true))
        })
        .await;
        for _ in 0..3 {
            held.push(pool.acquire().await.expect("a connection"));
        }
        drop(held);
        proxy.lead_to(server.address());
        until("records are on the primary", async || {
            let paid = send(&service, "/pay", Some("k")).await;
            assert!(paid.status != FAILED, "a transaction began on the standby: {paid:?}");
            paid.status == StatusCode::CREATED
        })
        .await;
        assert_eq!(rows(&server).await, 1);
    })
    .await;
}

/// Its own effects are undone, but what else it did before it failed is not known, and it is not to be done twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_may_run_twice_a_500_leaves_open_what_happened_beside_the_transaction() {
    in_time(async {
        let server = PostgresServer::start().await;
        let proxy = Proxy::start(server.address()).await;
        let (service, _pool) = service(&server, &proxy, 2).await;
        let failed = send(&service, "/failing", Some("k")).await;
        assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR, "{failed:?}");
        until("its lease has lapsed", async || {
            send(&service, "/failing", Some("k")).await.problem() == "outcome-unknown"
        })
        .await;
        assert_eq!(rows(&server).await, 0);
    })
    .await;
}
