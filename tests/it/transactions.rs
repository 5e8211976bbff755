//! Effects that are committed together with their outcome, or not at all.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use futures_util::StreamExt as _;
use idem_axum::sqlx::{self, AssertSqlSafe, Connection as _};
use idem_axum::{Idempotency, MemoryBackend, Transaction, idempotent};
use idem_tests::{Answer, App, Order, PostgresServer, Service, Tenant, in_time, until};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::sync::Notify;

use crate::figures::{expected, requests};

/// What a charge does besides writing its row.
#[derive(Clone, Default)]
struct Steps {
    /// The schema with the ledger.
    schema: String,
    /// Told once the row is written.
    written: Arc<Notify>,
    /// Waited for after that.
    go_on: Arc<Notify>,
}

/// Writes a row, waits where the order is held, and answers with the status that the order asks for.
async fn write(steps: &Steps, transaction: &mut Transaction, order: &Order) -> Result<Response, StatusCode> {
    let connection = transaction.begin().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    // A savepoint is the handler's own affair.
    let mut inner = connection
        .begin()
        .await
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let sql = format!("INSERT INTO {}.ledger (entry) VALUES ($1)", steps.schema);
    let insert = sqlx::query(AssertSqlSafe(sql)).bind(&order.order);
    insert
        .execute(&mut *inner)
        .await
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    inner.commit().await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    steps.written.notify_one();
    if order.held {
        steps.go_on.notified().await;
    }
    assert_ne!(order.order, "panic");
    let status = order.status.and_then(|status| StatusCode::from_u16(status).ok());
    Ok((status.unwrap_or(StatusCode::CREATED), order.order.clone()).into_response())
}

#[idempotent(ttl = "24h", scope = tenant, lease = "1s")]
async fn charge(
    State(_): State<App>,
    tenant: Tenant,
    Extension(steps): Extension<Steps>,
    mut transaction: Transaction,
    Json(order): Json<Order>,
) -> Result<Response, StatusCode> {
    write(&steps, &mut transaction, &order).await
}

#[idempotent(ttl = "24h", scope = tenant, required = false)]
async fn optional(
    tenant: Tenant,
    Extension(steps): Extension<Steps>,
    mut transaction: Transaction,
    Json(order): Json<Order>,
) -> Result<Response, StatusCode> {
    write(&steps, &mut transaction, &order).await
}

#[idempotent(ttl = "24h", scope = tenant)]
async fn streaming(
    tenant: Tenant,
    Extension(steps): Extension<Steps>,
    mut transaction: Transaction,
    Json(order): Json<Order>,
) -> Result<Response, StatusCode> {
    write(&steps, &mut transaction, &order).await?;
    let endless = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let stream = futures_util::stream::iter([Ok(b"first".to_vec())]).chain(endless);
    Ok(Body::from_stream(stream).into_response())
}

#[idempotent(ttl = "24h", scope = tenant)]
async fn outliving(
    tenant: Tenant,
    Extension(steps): Extension<Steps>,
    mut transaction: Transaction,
    Json(order): Json<Order>,
) -> Result<Response, StatusCode> {
    let answer = write(&steps, &mut transaction, &order).await?;
    tokio::spawn(async move {
        steps.go_on.notified().await;
        drop(transaction);
    });
    Ok(answer)
}

#[idempotent(ttl = "24h", scope = tenant, engine = own)]
async fn by_its_own_engine(
    tenant: Tenant,
    Extension(own): Extension<Idempotency>,
    Extension(steps): Extension<Steps>,
    mut transaction: Transaction,
    Json(order): Json<Order>,
) -> Result<Response, StatusCode> {
    drop(own);
    write(&steps, &mut transaction, &order).await
}

async fn without_the_attribute(
    Extension(steps): Extension<Steps>,
    mut transaction: Transaction,
    Json(order): Json<Order>,
) -> Result<Response, StatusCode> {
    write(&steps, &mut transaction, &order).await
}

/// A service with a ledger, in a schema of its own.
struct Ledger {
    service: Service,
    server: Arc<PostgresServer>,
    steps: Steps,
}

impl Ledger {
    async fn start() -> Self {
        let server = PostgresServer::shared().await;
        let (backend, schema) = server.backend().await;
        let table = format!("CREATE TABLE {schema}.ledger (entry text, CHECK (entry <> 'forbidden'))");
        server.execute(&table).await;
        let steps = Steps {
            schema,
            ..Steps::default()
        };
        let service = Service::start(backend, routes(&steps), None).await;
        Self { service, server, steps }
    }

    async fn send(&self, path: &str, key: &str, order: &Order) -> Answer {
        self.service.client.order_at(path, key, order).send().await
    }

    /// How often an entry is in the ledger.
    async fn entries(&self, entry: &str) -> i64 {
        let sql = format!(
            "SELECT count(*) FROM {}.ledger WHERE entry = '{entry}'",
            self.steps.schema
        );
        self.server.query(&sql).await
    }

    /// How many records there are.
    async fn records(&self) -> i64 {
        let sql = format!("SELECT count(*) FROM {}.idem_records", self.steps.schema);
        self.server.query(&sql).await
    }
}

fn routes(steps: &Steps) -> Router<App> {
    Router::new()
        .route("/charges", post(charge))
        .route("/charges/optional", post(optional))
        .route("/charges/streaming", post(streaming))
        .route("/charges/outliving", post(outliving))
        .route("/charges/unguarded", post(without_the_attribute))
        .layer(Extension(steps.clone()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_success_commits_and_its_replay_writes_nothing_and_a_kept_refusal_is_replayed_and_rolls_back() {
    let ledger = Ledger::start().await;
    for (status, rows) in [(201, 1), (404, 0)] {
        let entry = status.to_string();
        let order = Order::new(&entry).answered_with(status);
        let first = ledger.send("/charges", &entry, &order).await;
        assert_eq!(first.status.as_u16(), status, "{first:?}");
        assert_eq!(ledger.entries(&entry).await, rows);
        ledger.send("/charges", &entry, &order).await.assert_replays(&first);
        assert_eq!(ledger.entries(&entry).await, rows);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_there_for_others_before_the_answer_is() {
    in_time(async {
        let ledger = Ledger::start().await;
        let order = Order::new("o").held();
        let first = tokio::spawn(ledger.service.client.order_at("/charges", "k", &order).send());
        ledger.steps.written.notified().await;
        assert_eq!(ledger.entries("o").await, 0);
        assert_eq!(ledger.send("/charges", "k", &order).await.problem(), "in-flight");
        ledger.steps.go_on.notify_one();
        assert_eq!(first.await.expect("no panic").status, StatusCode::CREATED);
        assert_eq!(ledger.entries("o").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_kept_and_a_panic_roll_back_and_release() {
    let ledger = Ledger::start().await;
    for (entry, status) in [("500", 500), ("429", 429), ("forbidden", 500), ("panic", 500)] {
        let order = Order::new(entry).answered_with(status);
        for _ in 0..2 {
            let answer = ledger.send("/charges", entry, &order).await;
            assert_eq!(answer.status.as_u16(), status);
            assert!(!answer.is_replay());
            assert_eq!((ledger.entries(entry).await, ledger.records().await), (0, 0));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_whose_claim_was_taken_over_rolls_back_and_says_so() {
    in_time(async {
        let ledger = Ledger::start().await;
        let order = Order::new("o").held();
        let first = tokio::spawn(ledger.service.client.order_at("/charges", "k", &order).send());
        ledger.steps.written.notified().await;
        // As if another attempt had come and gone while this one stalled.
        let supersede = "UPDATE {}.idem_records SET token = decode(repeat('00', 16), 'hex')";
        ledger
            .server
            .execute(&supersede.replace("{}", &ledger.steps.schema))
            .await;
        ledger.steps.go_on.notify_one();
        let first = first.await.expect("no panic");
        assert_eq!(first.status, StatusCode::CONFLICT);
        assert_eq!(first.problem(), "in-flight");
        assert_eq!((ledger.entries("o").await, ledger.records().await), (0, 1));
    })
    .await;
}

/// The connection is lost before the commit, so that nothing was done.
///
/// On one thread, on which what is counted is listened to.
#[tokio::test]
async fn a_transaction_that_is_lost_is_said_to_be_rolled_back_and_counted_and_its_retry_runs_again() {
    in_time(async {
        let recorder = PrometheusBuilder::new().build_recorder();
        let _guard = metrics::set_default_local_recorder(&recorder);
        let ledger = Ledger::start().await;
        let order = Order::new("o").held();
        let first = tokio::spawn(ledger.service.client.order_at("/charges", "k", &order).send());
        ledger.steps.written.notified().await;
        let holds = "FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE '%RELEASE%' \
             AND pid IN (SELECT pid FROM pg_locks WHERE relation = '{}.ledger'::regclass)";
        let kill = format!("SELECT pg_terminate_backend(pid) {holds}").replace("{}", &ledger.steps.schema);
        ledger.server.execute(&kill).await;
        let gone = format!("SELECT count(*) {holds}").replace("{}", &ledger.steps.schema);
        until("it is gone", async || ledger.server.query::<i64>(&gone).await == 0).await;
        ledger.steps.go_on.notify_one();
        assert_eq!(first.await.expect("no panic").problem(), "rolled-back");
        ledger.service.idempotency.drain().await;
        assert_eq!((ledger.entries("o").await, ledger.records().await), (0, 0));
        let lost = [("POST /charges", "rolled_back", 1)];
        assert_eq!(requests(&recorder), expected(&lost));
        ledger.steps.go_on.notify_one();
        assert_eq!(ledger.send("/charges", "k", &order).await.status, StatusCode::CREATED);
        assert_eq!(ledger.entries("o").await, 1);
        let retried = [lost[0], ("POST /charges", "executed", 1)];
        assert_eq!(requests(&recorder), expected(&retried));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_it_is_committed_and_rolled_back_by_the_same_rules() {
    let ledger = Ledger::start().await;
    let send = async |order: &Order| {
        let call = ledger.service.client.call(reqwest::Method::POST, "/charges/optional");
        call.json(order).send().await
    };
    assert_eq!(send(&Order::new("kept")).await.status, StatusCode::CREATED);
    assert_eq!(
        send(&Order::new("not").answered_with(503)).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!((ledger.entries("kept").await, ledger.entries("not").await), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_committed_with_its_answer_is_refused_and_rolled_back() {
    let ledger = Ledger::start().await;
    for path in ["/charges/streaming", "/charges/outliving"] {
        let refused = ledger.send(path, "k", &Order::new("o")).await;
        assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR, "{path}: {refused:?}");
        assert_eq!(refused.problem(), "not-configured");
        assert_eq!((ledger.entries("o").await, ledger.records().await), (0, 0));
    }
    ledger.steps.go_on.notify_one();
    let unguarded = ledger.send("/charges/unguarded", "k", &Order::new("o")).await;
    assert_eq!(unguarded.status, StatusCode::SERVICE_UNAVAILABLE, "begin() is an error");
    assert_eq!(ledger.entries("o").await, 0);
}

/// The engine that commits is the one that claimed, whatever layer there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_names_its_engine_commits_where_that_keeps_its_records() {
    let ledger = Ledger::start().await;
    let own = ledger.service.idempotency.clone();
    let routes = Router::new()
        .route("/charges/own", post(by_its_own_engine))
        .layer(Extension(ledger.steps.clone()))
        .layer(Extension(own));
    let elsewhere = Service::start(MemoryBackend::new(), routes, None).await;
    let send = || elsewhere.client.order_at("/charges/own", "k", &Order::new("o")).send();
    let first = send().await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    send().await.assert_replays(&first);
    assert_eq!((ledger.entries("o").await, ledger.records().await), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_backend_that_is_no_postgres_it_is_refused_before_the_claim() {
    let service = Service::start(MemoryBackend::new(), routes(&Steps::default()), None).await;
    service.idempotency.check().await.expect("nothing is known yet");
    let refused = service.client.order_at("/charges", "k", &Order::new("o")).send().await;
    assert_eq!(refused.problem(), "not-configured");
    let error = service
        .idempotency
        .check()
        .await
        .expect_err("it has a handler that it cannot serve");
    assert!(error.to_string().contains("Transaction"), "{error}");
}
