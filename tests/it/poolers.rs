//! Postgres behind a pooler that lends a connection for one transaction, and behind an address that moves to another server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use futures_util::future::join_all;
use idem_axum::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use idem_axum::sqlx::{self, PgPool};
use idem_axum::{PostgresBackend, Transaction, idempotent};
use idem_core::Backend as _;
use idem_tests::{Order, PgBouncer, PostgresServer, Process, Service, in_time, until};
use reqwest::Method;
use tokio::net::{TcpListener, TcpStream};

#[idempotent(ttl = "24h", scope = global)]
async fn pay() -> StatusCode {
    StatusCode::CREATED
}

/// Its statements are text, or prepared within the transaction, which is all that such a pooler takes.
#[idempotent(ttl = "24h", scope = global)]
async fn debit(mut transaction: Transaction, entry: String) -> Result<StatusCode, StatusCode> {
    let failed = |_| StatusCode::BAD_GATEWAY;
    let connection = transaction.begin().await.map_err(failed)?;
    let row = sqlx::query("INSERT INTO ledger VALUES ($1)")
        .bind(entry)
        .persistent(false);
    row.execute(connection).await.map_err(failed)?;
    Ok(StatusCode::CREATED)
}

fn routes() -> Router<idem_tests::App> {
    Router::new().route("/pay", post(pay)).route("/debit", post(debit))
}

async fn pool(url: &str, cached: usize) -> PgPool {
    let options: PgConnectOptions = url.parse().expect("a valid URL");
    let options = options.statement_cache_capacity(cached);
    let pool = PgPoolOptions::new().max_connections(10).connect_with(options).await;
    pool.expect("the pooler answers")
}

/// How such a pooler may be set up: as it comes, and so that it leaves out what it does not know.
const SETTINGS: [&[&str]; 2] = [&[], &["ignore_startup_parameters = extra_float_digits,options"]];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_pooler_processes_migrate_claim_complete_and_commit() {
    in_time(async {
        for settings in SETTINGS {
            let server = PostgresServer::start().await;
            server.execute("CREATE TABLE ledger (entry text)").await;
            let bouncer = PgBouncer::before_with(&server, settings).await;
            let backends =
                join_all([100, 0, 100].map(async |cached| PostgresBackend::new(pool(&bouncer.url(), cached).await)))
                    .await;
            for migrated in join_all(backends.iter().map(PostgresBackend::migrate)).await {
                migrated.expect("processes that start together migrate one after the other");
            }
            let mut services = Vec::new();
            for backend in backends {
                backend.check().await.expect("it is ready");
                services.push(Service::start(backend, routes(), None).await);
            }
            // Equal keys at all of them at once, on more connections than the pooler has.
            for path in ["/pay", "/debit"] {
                for round in 0..5 {
                    let calls = services.iter().flat_map(|service| {
                        (0..20).map(move |key| {
                            let key = format!("{path}-{round}-{key}");
                            service
                                .client
                                .call(Method::POST, path)
                                .key(&key)
                                .body(key.clone())
                                .send()
                        })
                    });
                    for answer in join_all(calls).await {
                        match answer.status {
                            StatusCode::CREATED => assert!(!answer.says_not_stored(), "{answer:?}"),
                            _ => assert_eq!(answer.problem(), "in-flight"),
                        }
                    }
                }
            }
            let recorded: i64 = server.query("SELECT count(*) FROM idem_records WHERE state = 2").await;
            let rows: i64 = server.query("SELECT count(DISTINCT entry) FROM ledger").await;
            let all: i64 = server.query("SELECT count(*) FROM ledger").await;
            assert_eq!((recorded, rows, all), (200, 100, 100), "{settings:?}");
        }
    })
    .await;
}

/// Nobody can be told through a pooler, so who waits looks each second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_pooler_a_duplicate_waits_and_is_answered_and_a_dead_owner_is_replaced() {
    in_time(async {
        let server = PostgresServer::start().await;
        let bouncer = PgBouncer::before(&server).await;
        let backend = PostgresBackend::new(pool(&bouncer.url(), 100).await);
        backend.migrate().await.expect("a table");
        let service = Service::start(backend, Router::new(), None).await;
        let order = Order::new("o").held();
        let first = tokio::spawn(service.client.order_at("/orders/waiting", "k", &order).send());
        service.app.wait_until_started(1).await;
        let second = tokio::spawn(service.client.order_at("/orders/waiting", "k", &order).send());
        let renewed = "SELECT count(*) FROM idem_records_leases";
        until("its lease is renewed", async || server.query::<i64>(renewed).await == 1).await;
        service.app.open_gate();
        let first = first.await.expect("no panic");
        assert_eq!(first.status, StatusCode::CREATED);
        second.await.expect("no panic").assert_replays(&first);

        let mut owner = Process::start(env!("CARGO_BIN_EXE_server"), &bouncer.url());
        let held = Order::new("held").held();
        let lost = tokio::spawn(owner.client.order_at("/orders/waiting", "dead", &held).try_send());
        let claimed = "SELECT count(*) FROM idem_records WHERE key LIKE '%:dead'";
        until("it is claimed", async || server.query::<i64>(claimed).await == 1).await;
        owner.kill();
        lost.await.expect("no panic").expect_err("its process was killed");
        let retry = service.client.order_at("/orders/waiting", "dead", &held).send().await;
        assert_eq!(retry.json()["attempt"], 2, "{retry:?}");
    })
    .await;
}

/// An address that leads to one server or the other; connections that are open stay where they are.
async fn moving_address(target: Arc<Mutex<SocketAddr>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let to = *target.lock().expect("nobody panics");
            tokio::spawn(async move {
                if let Ok(mut upstream) = TcpStream::connect(to).await {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
                }
            });
        }
    });
    address
}

/// The old server is read only now, as a primary is that has become a standby.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_connections_to_the_old_server_are_given_up_and_the_new_one_is_found() {
    in_time(async {
        let (old, new) = (PostgresServer::start().await, PostgresServer::start().await);
        for server in [&old, &new] {
            server.execute("CREATE TABLE ledger (entry text)").await;
            PostgresBackend::new(server.pool().await)
                .migrate()
                .await
                .expect("a table");
        }
        let target = Arc::new(Mutex::new(old.address()));
        let url = format!("postgres://postgres@{}/postgres", moving_address(target.clone()).await);
        let pool = PgPoolOptions::new()
            .max_connections(5)
            .connect(&url)
            .await
            .expect("it answers");
        let service = Service::start(PostgresBackend::new(pool), routes(), None).await;
        let send = |path: &'static str, key: String| {
            service
                .client
                .call(Method::POST, path)
                .key(&key)
                .body(key.clone())
                .send()
        };
        for path in ["/pay", "/debit"] {
            let warm = join_all((0..20).map(|key| send(path, format!("warm-{key}")))).await;
            assert!(warm.iter().all(|answer| answer.status == 201), "{warm:?}");
        }
        old.set("default_transaction_read_only", "on").await;
        *target.lock().expect("nobody panics") = new.address();
        let read_only = "SELECT current_setting('transaction_read_only')";
        until("the old one is read only", async || {
            old.query::<String>(read_only).await == "on"
        })
        .await;
        // The first call that meets the old server says so for all connections; nobody needs to be refused.
        for key in 0..40 {
            let answer = send("/pay", format!("after-{key}")).await;
            assert_eq!(answer.status, StatusCode::CREATED, "{key}: {answer:?}");
        }
        service.idempotency.check().await.expect("it is ready");
        let recorded: i64 = new.query("SELECT count(*) FROM idem_records WHERE state = 2").await;
        assert_eq!(recorded, 40);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_finds_the_new_server_after_a_failover() {
    in_time(async {
        let (old, new) = (PostgresServer::start().await, PostgresServer::start().await);
        for server in [&old, &new] {
            PostgresBackend::new(server.pool().await)
                .migrate()
                .await
                .expect("a table");
        }
        let target = Arc::new(Mutex::new(old.address()));
        let url = format!("postgres://postgres@{}/postgres", moving_address(target.clone()).await);
        let pool = PgPoolOptions::new().connect_lazy(&url).expect("a valid URL");
        let backend = PostgresBackend::new(pool);
        backend.check().await.expect("it is ready");
        old.set("default_transaction_read_only", "on").await;
        let said = until_refused(&backend).await;
        assert!(said.contains("takes no writes"), "{said}");
        *target.lock().expect("nobody panics") = new.address();
        tokio::time::timeout(Duration::from_secs(10), async {
            while backend.check().await.is_err() {}
        })
        .await
        .expect("it is ready again");
    })
    .await;
}

async fn until_refused(backend: &PostgresBackend) -> String {
    loop {
        if let Err(error) = backend.check().await {
            return error.to_string();
        }
    }
}
