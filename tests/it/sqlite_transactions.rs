//! Effects in SQLite that are committed together with their outcome, or not at all.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use idem_axum::sqlx::{self, AssertSqlSafe, Connection as _, Sqlite};
use idem_axum::{BackendErrorKind, Transaction, idempotent};
use idem_tests::{Answer, App, Order, Service, SqliteFile, Tenant, in_time};
use tokio::sync::Notify;

/// What a charge does besides writing its row.
#[derive(Clone, Default)]
struct Steps {
    /// Executed after the row is written, and its error is swallowed.
    then: Arc<str>,
    /// Told once the row is written.
    written: Arc<Notify>,
    /// Waited for after that, where the order is held.
    go_on: Arc<Notify>,
}

#[idempotent(ttl = "24h", scope = tenant, lease = "2s")]
async fn charge(
    State(_): State<App>,
    tenant: Tenant,
    Extension(steps): Extension<Steps>,
    mut transaction: Transaction<Sqlite>,
    Json(order): Json<Order>,
) -> Result<Response, StatusCode> {
    let failed = |_| StatusCode::INTERNAL_SERVER_ERROR;
    let connection = transaction.begin().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    // A savepoint is the handler's own affair.
    let mut inner = connection.begin().await.map_err(failed)?;
    let insert = sqlx::query("INSERT INTO ledger (entry) VALUES (?)").bind(&order.order);
    insert.execute(&mut *inner).await.map_err(failed)?;
    inner.commit().await.map_err(failed)?;
    let _ = sqlx::raw_sql(AssertSqlSafe(steps.then.to_string()))
        .execute(connection)
        .await;
    steps.written.notify_one();
    if order.held {
        steps.go_on.notified().await;
    }
    assert_ne!(order.order, "panic");
    let status = order.status.and_then(|status| StatusCode::from_u16(status).ok());
    Ok((status.unwrap_or(StatusCode::CREATED), order.order.clone()).into_response())
}

#[idempotent(ttl = "24h", scope = tenant)]
async fn elsewhere(tenant: Tenant, mut transaction: Transaction, Json(order): Json<Order>) -> StatusCode {
    drop(order);
    match transaction.begin().await {
        Ok(_connection) => StatusCode::CREATED,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// A service with a ledger in the file of its records.
struct Ledger {
    service: Service,
    file: SqliteFile,
    steps: Steps,
}

impl Ledger {
    async fn start(then: &str) -> Self {
        let file = SqliteFile::create().await;
        file.execute(
            "CREATE TABLE accounts (id TEXT PRIMARY KEY); \
             CREATE TABLE ledger (entry TEXT UNIQUE ON CONFLICT ABORT, \
             account TEXT REFERENCES accounts (id) DEFERRABLE INITIALLY DEFERRED)",
        )
        .await;
        let steps = Steps {
            then: then.into(),
            ..Steps::default()
        };
        let routes = Router::new()
            .route("/charges", post(charge))
            .route("/elsewhere", post(elsewhere))
            .layer(Extension(steps.clone()));
        let service = Service::start(file.backend().await, routes, None).await;
        Self { service, file, steps }
    }

    async fn send(&self, key: &str, order: &Order) -> Answer {
        self.service.client.order_at("/charges", key, order).send().await
    }

    /// How often an entry is in the ledger.
    async fn entries(&self, entry: &str) -> i64 {
        let counted = format!("SELECT count(*) FROM ledger WHERE entry = '{entry}'");
        self.file.query(&counted).await
    }

    async fn records(&self) -> i64 {
        self.file.query("SELECT count(*) FROM idem_records").await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_success_commits_and_a_kept_refusal_rolls_back_and_both_are_replayed() {
    let ledger = Ledger::start("").await;
    for (status, rows) in [(201, 1), (404, 0)] {
        let entry = status.to_string();
        let order = Order::new(&entry).answered_with(status);
        let first = ledger.send(&entry, &order).await;
        assert_eq!(first.status.as_u16(), status, "{first:?}");
        assert_eq!(ledger.entries(&entry).await, rows);
        ledger.send(&entry, &order).await.assert_replays(&first);
        assert_eq!(ledger.entries(&entry).await, rows);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_and_a_panic_roll_back_and_release() {
    let ledger = Ledger::start("").await;
    let failed = ledger.send("k", &Order::new("o").answered_with(500)).await;
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR);
    let panicked = ledger.send("p", &Order::new("panic")).await;
    assert_eq!(panicked.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!((ledger.entries("o").await, ledger.entries("panic").await), (0, 0));
    assert_eq!(ledger.records().await, 0);
    assert_eq!(ledger.send("k", &Order::new("o")).await.status, StatusCode::CREATED);
    assert_eq!(ledger.entries("o").await, 1);
}

/// A transaction is the one writer of the file: others wait for it, and replays do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_transaction_is_open_replays_are_answered_and_other_charges_wait() {
    in_time(async {
        let ledger = Ledger::start("").await;
        let done = Order::new("done");
        let replayed = ledger.send("done", &done).await;
        ledger.steps.written.notified().await;
        let held = Order::new("held").held();
        let first = tokio::spawn(ledger.service.client.order_at("/charges", "k", &held).send());
        ledger.steps.written.notified().await;
        let (records, entries) = (ledger.records().await, ledger.entries("held").await);
        assert_eq!((records, entries), (2, 0), "its claim is there, and its row is not");
        ledger.send("done", &done).await.assert_replays(&replayed);
        assert_eq!(ledger.send("k", &held).await.problem(), "in-flight");
        let other = tokio::spawn(
            ledger
                .service
                .client
                .order_at("/charges", "other", &Order::new("other"))
                .send(),
        );
        ledger.send("done", &done).await.assert_replays(&replayed);
        ledger.steps.go_on.notify_one();
        assert_eq!(first.await.expect("no panic").status, StatusCode::CREATED);
        assert_eq!(other.await.expect("no panic").status, StatusCode::CREATED);
        assert_eq!((ledger.entries("held").await, ledger.entries("other").await), (1, 1));
    })
    .await;
}

/// What is checked at the commit refuses it, and will again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_constraint_that_fails_at_the_commit_rolls_back_and_is_said() {
    let ledger = Ledger::start("UPDATE ledger SET account = 'nobody'").await;
    let refused = ledger.send("k", &Order::new("o")).await;
    assert_eq!(refused.problem(), "rolled-back", "{refused:?}");
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!refused.headers.contains_key("retry-after"), "{refused:?}");
    assert_eq!((ledger.entries("o").await, ledger.records().await), (0, 0));
    ledger.file.execute("INSERT INTO accounts VALUES ('nobody')").await;
    assert_eq!(ledger.send("k", &Order::new("o")).await.status, StatusCode::CREATED);
    assert_eq!(ledger.entries("o").await, 1);
}

/// A statement that undoes the whole transaction, and whose error the handler swallows: a success would be a lie.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_success_after_the_transaction_was_undone_is_not_sent() {
    let ledger = Ledger::start("INSERT OR ROLLBACK INTO ledger (entry) VALUES ('twice'), ('twice')").await;
    let undone = ledger.send("k", &Order::new("o")).await;
    assert_eq!(undone.problem(), "rolled-back", "{undone:?}");
    assert_eq!(undone.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!((ledger.entries("o").await, ledger.records().await), (0, 0));
    let failed = ledger.send("k", &Order::new("o").answered_with(500)).await;
    assert_eq!(
        (failed.status, failed.body.as_ref()),
        (StatusCode::INTERNAL_SERVER_ERROR, &b"o"[..])
    );
    assert_eq!(ledger.records().await, 0, "it is released");
}

/// Nobody knows how much of it is there, so that it is not done again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_commits_by_itself_is_not_run_again() {
    for then in [
        "COMMIT",
        "COMMIT; BEGIN",
        "ROLLBACK; INSERT INTO ledger (entry) VALUES ('o')",
    ] {
        for (status, problem) in [(201, "not-committed"), (500, "")] {
            let ledger = Ledger::start(then).await;
            let order = Order::new("o").answered_with(status);
            let answer = ledger.send("k", &order).await;
            if problem.is_empty() {
                assert_eq!(answer.status.as_u16(), status, "{then}: {answer:?}");
            } else {
                assert_eq!(answer.problem(), problem, "{then}");
            }
            let retry = ledger.send("k", &order).await;
            assert_eq!(retry.problem(), "response-not-stored", "{then}, {status}");
            assert_eq!(ledger.entries("o").await, 1, "{then}, {status}");
        }
    }
}

/// IDEM-16: the state of a connection that somebody else has used is not believed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_left_in_a_transaction_is_not_used() {
    let file = SqliteFile::create().await;
    file.execute("CREATE TABLE ledger (entry TEXT)").await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file.path());
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
    let pool = pool.connect_with(options).await.expect("the file is there");
    let mut left = pool.acquire().await.expect("a connection");
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM ledger")
        .execute(&mut *left)
        .await
        .expect("a valid statement");
    drop(left);
    let backend = idem_axum::SqliteBackend::new(pool);
    let routes = Router::new()
        .route("/charges", post(charge))
        .layer(Extension(Steps::default()));
    let service = Service::start(backend, routes, None).await;
    let answer = service.client.order_at("/charges", "k", &Order::new("o")).send().await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert_eq!(file.query("SELECT count(*) FROM ledger").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_in_another_database_than_the_records_is_refused_and_the_check_says_so() {
    let ledger = Ledger::start("").await;
    ledger.service.idempotency.check().await.expect("nothing has asked yet");
    let order = Order::new("o");
    let refused = ledger.service.client.order_at("/elsewhere", "k", &order).send().await;
    assert_eq!(refused.problem(), "not-configured", "{refused:?}");
    let error = ledger.service.idempotency.check().await.expect_err("it has");
    assert_eq!(error.kind(), BackendErrorKind::Config);
    assert_eq!(ledger.records().await, 0);
}
