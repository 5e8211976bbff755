//! Steps in transactions of their own, beside a handler's `Transaction` and inside of each other, on Postgres and SQLite.

mod handlers;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use axum::routing::post;
use axum::{Extension, Router};
use idem_tests::{Answer, App, Order, PostgresServer, Service, SqliteFile, in_time};
use reqwest::Method;

use self::handlers::{Stage, on_postgres, on_sqlite};

/// The database of a service.
enum Database {
    Postgres(Arc<PostgresServer>),
    Sqlite(SqliteFile),
}

/// A service with a table of rows in the database of its records.
struct Theatre {
    service: Service,
    stage: Stage,
    database: Database,
}

const TABLES: &str = "CREATE TABLE @accounts (id TEXT PRIMARY KEY); \
     CREATE TABLE @ledger (entry TEXT, account TEXT REFERENCES @accounts (id) DEFERRABLE INITIALLY DEFERRED)";

impl Theatre {
    async fn on_postgres() -> Self {
        let server = PostgresServer::shared().await;
        let (backend, schema) = server.backend().await;
        let stage = Stage {
            schema: format!("{schema}."),
            ..Stage::default()
        };
        let routes = Router::new().route("/play", post(on_postgres::play));
        let service = Service::start(backend, with(routes, &stage), None).await;
        Self::new(service, stage, Database::Postgres(server)).await
    }

    async fn on_sqlite() -> Self {
        let (file, stage) = (SqliteFile::create().await, Stage::default());
        let routes = Router::new().route("/play", post(on_sqlite::play));
        let service = Service::start(file.backend().await, with(routes, &stage), None).await;
        Self::new(service, stage, Database::Sqlite(file)).await
    }

    async fn new(service: Service, stage: Stage, database: Database) -> Self {
        let theatre = Self {
            service,
            stage,
            database,
        };
        theatre.execute(TABLES).await;
        theatre
    }

    /// Executes statements as a stranger. `@` stands before the name of a table.
    async fn execute(&self, sql: &str) {
        let sql = sql.replace('@', &self.stage.schema);
        match &self.database {
            Database::Postgres(server) => server.execute(&sql).await,
            Database::Sqlite(file) => drop(file.execute(&sql).await),
        }
    }

    async fn rows(&self) -> i64 {
        let sql = format!("SELECT count(*) FROM {}ledger", self.stage.schema);
        match &self.database {
            Database::Postgres(server) => server.query(&sql).await,
            Database::Sqlite(file) => file.query(&sql).await,
        }
    }

    async fn send(&self, key: &str, order: &Order) -> Answer {
        self.service.client.order_at("/play", key, order).send().await
    }

    /// Sends an order whose key is its name.
    async fn play(&self, order: &str) -> Answer {
        self.send(&key_of(order), &Order::new(order)).await
    }

    async fn play_without_key(&self, order: &str) -> Answer {
        let call = self.service.client.call(Method::POST, "/play");
        call.json(&Order::new(order)).send().await
    }

    fn bodies(&self) -> u32 {
        self.stage.bodies.load(Ordering::SeqCst)
    }

    /// That a step is refused before its body, and that others can write at once.
    async fn refuses(&self, order: &str) {
        for without_key in [false, true] {
            let refused = if without_key {
                self.play_without_key(order).await
            } else {
                self.play(order).await
            };
            assert_eq!(refused.problem(), "not-configured", "{order}: {refused:?}");
            assert_eq!((self.bodies(), self.rows().await), (0, 0), "{order}");
        }
        let key = format!("after-{}", key_of(order));
        let after = self.send(&key, &Order::new("transact")).await;
        assert_eq!(after.status, StatusCode::CREATED, "{order}: {after:?}");
        self.execute("DELETE FROM @ledger").await;
        self.stage.bodies.store(0, Ordering::SeqCst);
    }
}

fn key_of(order: &str) -> String {
    order.replace([' ', ','], "-")
}

fn with(routes: Router<App>, stage: &Stage) -> Router<App> {
    routes.layer(Extension(stage.clone()))
}

async fn a_step_that_its_handlers_transaction_would_hold_up_is_refused(theatre: Theatre) {
    theatre.refuses("begin, then transact").await;
    theatre.refuses("begin and end, then transact").await;
    theatre.refuses("transact in transact").await;
}

async fn a_transaction_does_not_begin_inside_of_a_step(theatre: Theatre) {
    let refused = theatre.play("begin in transact").await;
    assert_eq!(refused.status, StatusCode::IM_A_TEAPOT, "{refused:?}");
    assert_eq!(theatre.rows().await, 0);
    assert_eq!(theatre.play("transact").await.status, StatusCode::CREATED);
}

async fn steps_before_a_transaction_are_gone_on_after(theatre: Theatre) {
    assert_eq!(theatre.play("steps, then begin").await.status, StatusCode::BAD_GATEWAY);
    assert_eq!((theatre.bodies(), theatre.rows().await), (2, 1));
    let done = theatre.play("steps, then begin").await;
    assert_eq!(done.status, StatusCode::CREATED, "{done:?}");
    assert_eq!((theatre.bodies(), theatre.rows().await), (2, 2));
    theatre.play("steps, then begin").await.assert_replays(&done);
}

/// Its rows are there and its record is not, so that nobody may run it again.
async fn a_body_that_commits_by_itself_is_not_run_again(theatre: Theatre) {
    let first = theatre.play("a body that commits").await;
    assert_eq!(first.problem(), "not-committed", "{first:?}");
    let failed = theatre.play("a body that commits and fails").await;
    assert_eq!(
        failed.status,
        StatusCode::BAD_GATEWAY,
        "the error of the body passes through"
    );
    for order in ["a body that commits", "a body that commits and fails"] {
        let retry = theatre.play(order).await;
        assert_eq!(retry.problem(), "outcome-unknown", "{order}: {retry:?}");
        assert!(retry.text().contains("`debit`"), "{retry:?}");
    }
    assert_eq!((theatre.bodies(), theatre.rows().await), (2, 2));
    let unprotected = theatre.play_without_key("a body that commits").await;
    assert_eq!(unprotected.problem(), "not-committed", "{unprotected:?}");
    assert!(!unprotected.headers.contains_key("retry-after"), "{unprotected:?}");
}

/// The mark of the transaction is still there, though a savepoint was open when the body ended.
async fn a_body_that_gives_a_savepoint_up_is_rolled_back_and_run_again(theatre: Theatre) {
    const ORDER: &str = "a body that gives a savepoint up and fails";
    for key in 0..20 {
        for _attempt in 1..=2 {
            let failed = theatre.send(&format!("k{key}"), &Order::new(ORDER)).await;
            assert_eq!(failed.status, StatusCode::BAD_GATEWAY, "{failed:?}");
        }
    }
    assert_eq!((theatre.bodies(), theatre.rows().await), (40, 0));
}

async fn a_constraint_that_will_refuse_the_commit_again_is_said(theatre: Theatre) {
    for times in 1..=2 {
        let refused = theatre.play("a deferred constraint").await;
        assert_eq!(refused.problem(), "rolled-back", "{refused:?}");
        assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!refused.headers.contains_key("retry-after"), "{refused:?}");
        assert_eq!((theatre.bodies(), theatre.rows().await), (times, 0));
    }
    theatre.execute("INSERT INTO @accounts VALUES ('nobody')").await;
    assert_eq!(theatre.play("a deferred constraint").await.status, StatusCode::CREATED);
}

macro_rules! on_both {
    ($($test:ident)*) => {
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::in_time(super::$test(super::Theatre::on_postgres().await)).await;
                }
            )*
        }

        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::in_time(super::$test(super::Theatre::on_sqlite().await)).await;
                }
            )*
        }
    };
}

on_both! {
    a_step_that_its_handlers_transaction_would_hold_up_is_refused
    a_transaction_does_not_begin_inside_of_a_step
    steps_before_a_transaction_are_gone_on_after
    a_body_that_commits_by_itself_is_not_run_again
    a_body_that_gives_a_savepoint_up_is_rolled_back_and_run_again
    a_constraint_that_will_refuse_the_commit_again_is_said
}

/// A record is written by the one writer of the file, which the transaction is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_sqlite_no_step_is_recorded_while_a_transaction_of_the_handler_is_open() {
    in_time(async {
        let theatre = Theatre::on_sqlite().await;
        theatre.refuses("begin, then run").await;
        theatre.refuses("begin and end, then run").await;
        theatre.refuses("run in transact").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_postgres_steps_are_recorded_beside_a_transaction_of_the_handler() {
    in_time(async {
        let theatre = Theatre::on_postgres().await;
        for (times, order) in [(1, "begin, then run"), (2, "run in transact")] {
            let answer = theatre.play(order).await;
            assert_eq!(answer.status, StatusCode::CREATED, "{order}: {answer:?}");
            assert_eq!(theatre.bodies(), times);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_waits_for_its_transaction_as_long_as_for_any_call_to_the_backend() {
    in_time(async {
        let theatre = Theatre::on_sqlite().await;
        let held = Order::new("transact").held();
        let waiting = tokio::spawn(theatre.service.client.order_at("/play", "k", &held).send());
        theatre.stage.started.notified().await;
        let other = Order::new("hold a transaction");
        let holding = tokio::spawn(theatre.service.client.order_at("/play", "other", &other).send());
        theatre.stage.started.notified().await;
        theatre.stage.go_on.notify_one();
        let refused = waiting.await.expect("no panic");
        assert_eq!(refused.problem(), "backend-unavailable", "{refused:?}");
        assert_eq!(theatre.bodies(), 0);
        theatre.stage.go_on.notify_one();
        assert_eq!(holding.await.expect("no panic").status, StatusCode::CREATED);
        assert_eq!(theatre.rows().await, 0);
    })
    .await;
}

/// The commit of a step without a claim has the deadline of a call to the backend too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_not_answered_is_given_up_without_a_key_too() {
    in_time(async {
        let theatre = Theatre::on_postgres().await;
        theatre
            .execute(
                "CREATE TABLE @gate (open TEXT); \
                 CREATE FUNCTION @wait() RETURNS trigger LANGUAGE plpgsql AS \
                 'BEGIN LOCK TABLE @gate; RETURN NULL; END'; \
                 CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON @ledger DEFERRABLE INITIALLY DEFERRED \
                 FOR EACH ROW EXECUTE FUNCTION @wait()",
            )
            .await;
        let Database::Postgres(server) = &theatre.database else {
            unreachable!("it is on Postgres");
        };
        let closed = server.hold(&format!("LOCK TABLE {}gate", theatre.stage.schema)).await;
        let given_up = theatre.play_without_key("transact").await;
        assert_eq!(given_up.problem(), "rolled-back", "{given_up:?}");
        assert_eq!(theatre.rows().await, 0);
        drop(closed);
    })
    .await;
}
