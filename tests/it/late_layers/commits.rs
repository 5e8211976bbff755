//! A layer that begins a transaction, gives it to the handler, and commits it once it has the response.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use idem_axum::sqlx::{self, PgConnection, PgPool, Postgres};
use idem_axum::{Idempotency, Transaction, idempotent};
use idem_tests::{App, Call, PostgresServer, Service};
use reqwest::Method;
use tokio::sync::Mutex;

use super::{Gate, hang_up};

pub(crate) type Shared = Arc<Mutex<Option<sqlx::Transaction<'static, Postgres>>>>;

/// Commits whatever the handler answers, and answers in its place where that fails.
pub(crate) async fn commit_on_response(State(pool): State<PgPool>, mut request: Request, next: Next) -> Response {
    let begun = pool.begin().await.expect("the server answers");
    let shared: Shared = Arc::new(Mutex::new(Some(begun)));
    request.extensions_mut().insert(shared.clone());
    let response = next.run(request).await;
    let transaction = shared.lock().await.take().expect("only this layer takes it");
    match transaction.commit().await {
        Ok(()) => response,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A ledger that takes rows of the account `good` alone, and checks that at the commit.
pub(crate) const TABLES: &str = "CREATE TABLE accounts (id text PRIMARY KEY); INSERT INTO accounts VALUES ('good'); \
                                 CREATE TABLE ledger (account text REFERENCES accounts DEFERRABLE INITIALLY DEFERRED)";

/// The table checks at the commit that the account exists.
pub(crate) async fn write(connection: &mut PgConnection, account: String) -> Result<(), StatusCode> {
    let row = sqlx::query("INSERT INTO ledger VALUES ($1)").bind(account);
    let written = row.execute(connection).await;
    written.map(drop).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

#[idempotent(ttl = "1h", scope = global)]
async fn committed_by_the_layer(
    Extension(gate): Extension<Gate>,
    Extension(shared): Extension<Shared>,
    account: String,
) -> Result<StatusCode, StatusCode> {
    {
        let mut shared = shared.lock().await;
        let transaction = shared.as_mut().expect("the layer has begun it");
        write(transaction, account).await?;
    }
    gate.pass().await;
    Ok(StatusCode::CREATED)
}

#[idempotent(ttl = "1h", scope = global)]
async fn committed_by_the_handler(
    Extension(gate): Extension<Gate>,
    Extension(pool): Extension<PgPool>,
    account: String,
) -> Result<StatusCode, StatusCode> {
    let begun = pool.begin().await;
    let mut transaction = begun.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    write(&mut transaction, account).await?;
    gate.pass().await;
    let committed = transaction.commit().await;
    committed.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(StatusCode::CREATED)
}

#[idempotent(ttl = "1h", scope = global)]
async fn committed_with_the_record(
    Extension(gate): Extension<Gate>,
    mut transaction: Transaction,
    account: String,
) -> Result<StatusCode, StatusCode> {
    let connection = transaction.begin().await;
    write(connection.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?, account).await?;
    gate.pass().await;
    Ok(StatusCode::CREATED)
}

/// A service whose ledger has a row for `good` at most, for there is no other account.
struct Bank {
    server: PostgresServer,
    service: Service,
}

impl Bank {
    async fn open(gate: &Gate, routes: impl FnOnce(Router<App>) -> Router<App>) -> Self {
        let server = PostgresServer::start().await;
        server.execute(TABLES).await;
        let (backend, _schema) = server.backend().await;
        let pool = server.pool().await;
        let routes = routes(Router::new())
            .layer(Extension(gate.clone()))
            .layer(Extension(pool.clone()));
        let commits = from_fn_with_state(pool, commit_on_response);
        let wrap = |router: Router| router.layer(commits);
        let service = Service::wrapped(Idempotency::new(backend), routes, wrap).await;
        Self { server, service }
    }

    fn charge(&self, account: &'static str) -> Call {
        let call = self.service.client.call(Method::POST, "/charge");
        call.key(account).body(account)
    }

    async fn rows(&self) -> i64 {
        self.server.query("SELECT count(*) FROM ledger").await
    }

    /// A commit that is refused is no success, not for a retry either; and a client that leaves loses nothing.
    async fn assert_is_right(&self, gate: &Gate) {
        for _ in 0..2 {
            let refused = self.charge("unknown").send().await;
            assert!(refused.status.is_server_error(), "{refused:?}");
            assert!(!refused.is_replay());
            self.service.idempotency.drain().await;
        }
        assert_eq!(self.rows().await, 0);
        hang_up(&self.service, gate, self.charge("good")).await;
        assert_eq!(self.rows().await, 1);
        let retry = self.charge("good").send().await;
        assert_eq!(retry.status, StatusCode::CREATED);
        assert!(retry.is_replay());
        assert_eq!(self.rows().await, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_a_layer_that_fails_is_a_500_and_then_a_replayed_success() {
    let bank = Bank::open(&Gate::default(), |routes| {
        routes.route("/charge", post(committed_by_the_layer))
    })
    .await;
    let first = bank.charge("unknown").send().await;
    assert_eq!(first.status, StatusCode::INTERNAL_SERVER_ERROR);
    let retry = bank.charge("unknown").send().await;
    assert_eq!(retry.status, StatusCode::CREATED);
    assert!(retry.is_replay());
    assert_eq!(bank.rows().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_takes_the_commit_of_a_layer_with_it() {
    let gate = Gate::default();
    let bank = Bank::open(&gate, |routes| routes.route("/charge", post(committed_by_the_layer))).await;
    hang_up(&bank.service, &gate, bank.charge("good")).await;
    let retry = bank.charge("good").send().await;
    assert_eq!(retry.status, StatusCode::CREATED);
    assert!(retry.is_replay());
    assert_eq!(bank.rows().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_commits_before_it_answers_is_right_when_that_fails_and_when_the_client_leaves() {
    let gate = Gate::default();
    let bank = Bank::open(&gate, |routes| routes.route("/charge", post(committed_by_the_handler))).await;
    bank.assert_is_right(&gate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_committed_with_their_record_are_right_when_that_fails_and_when_the_client_leaves() {
    let gate = Gate::default();
    let bank = Bank::open(&gate, |routes| routes.route("/charge", post(committed_with_the_record))).await;
    bank.assert_is_right(&gate).await;
}
