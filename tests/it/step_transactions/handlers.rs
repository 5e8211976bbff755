//! The handlers of steps in transactions: one for each database, which plays the scene that its order names.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use axum::http::StatusCode;
use idem_axum::sqlx;
use tokio::sync::Notify;

/// What the handlers have.
#[derive(Clone, Default)]
pub(super) struct Stage {
    /// The table of the rows, and what is before its name.
    pub(super) schema: String,
    /// How often the bodies of steps were called.
    pub(super) bodies: Arc<AtomicU32>,
    /// Told by a handler whose order is held.
    pub(super) started: Arc<Notify>,
    /// What such a handler waits for.
    pub(super) go_on: Arc<Notify>,
}

impl Stage {
    fn insert(&self, then: &str) -> String {
        format!("INSERT INTO {}ledger (entry) VALUES ('row'); {then}", self.schema)
    }

    /// A statement that a deferred constraint refuses at the commit.
    fn defer(&self) -> String {
        format!("UPDATE {}ledger SET account = 'nobody'", self.schema)
    }
}

/// The status for an error of `Transaction::begin`.
fn begun_status(error: &sqlx::Error) -> StatusCode {
    match error {
        sqlx::Error::Configuration(_) => StatusCode::IM_A_TEAPOT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

macro_rules! handlers {
    ($module:ident, $database:ty, $connection:ty) => {
        pub(super) mod $module {
            use std::sync::atomic::Ordering;

            use axum::http::StatusCode;
            use axum::{Extension, Json};
            use idem_axum::sqlx::{self, AssertSqlSafe, Connection as _};
            use idem_axum::{Steps, Transaction, idempotent};
            use idem_tests::{Order, Tenant};

            use super::{Stage, begun_status};
            use crate::steps::Stop;

            async fn execute(connection: &mut $connection, sql: String) -> Result<(), Stop> {
                let executed = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
                executed.map(drop).map_err(|_| Stop::Status(StatusCode::CONFLICT))
            }

            /// A step that writes a row, and then executes `then`.
            async fn debit(stage: &Stage, steps: &Steps, then: &str) -> Result<(), Stop> {
                let body = async |connection: &mut $connection| {
                    stage.bodies.fetch_add(1, Ordering::SeqCst);
                    execute(connection, stage.insert(then)).await
                };
                steps.transact("debit", body).await
            }

            /// A step that writes nothing to the database.
            async fn charge(stage: &Stage, steps: &Steps) -> Result<(), Stop> {
                let body = async |_| {
                    stage.bodies.fetch_add(1, Ordering::SeqCst);
                    Ok::<_, Stop>(())
                };
                steps.run("charge", body).await
            }

            async fn begin(transaction: &mut Transaction<$database>) -> Result<&mut $connection, Stop> {
                let begun = transaction.begin().await;
                begun.map_err(|error| Stop::Status(begun_status(&error)))
            }

            #[idempotent(ttl = "24h", scope = tenant, required = false)]
            pub(in crate::step_transactions) async fn play(
                tenant: Tenant,
                Extension(stage): Extension<Stage>,
                mut transaction: Transaction<$database>,
                steps: Steps,
                Json(order): Json<Order>,
            ) -> Result<StatusCode, Stop> {
                if order.held {
                    stage.started.notify_one();
                    stage.go_on.notified().await;
                }
                match &*order.order {
                    "transact" => debit(&stage, &steps, "").await?,
                    "a body that commits" => debit(&stage, &steps, "COMMIT").await?,
                    "a body that commits and fails" => {
                        let body = async |connection: &mut $connection| {
                            stage.bodies.fetch_add(1, Ordering::SeqCst);
                            execute(connection, stage.insert("COMMIT")).await?;
                            Err::<(), _>(Stop::Status(StatusCode::BAD_GATEWAY))
                        };
                        steps.transact("debit", body).await?;
                    }
                    "a body that gives a savepoint up and fails" => {
                        let body = async |connection: &mut $connection| {
                            stage.bodies.fetch_add(1, Ordering::SeqCst);
                            let begun = connection.begin().await;
                            let mut inner = begun.map_err(|_| Stop::Status(StatusCode::CONFLICT))?;
                            execute(&mut inner, stage.insert("")).await?;
                            Err::<(), _>(Stop::Status(StatusCode::BAD_GATEWAY))
                        };
                        steps.transact("debit", body).await?;
                    }
                    "a deferred constraint" => debit(&stage, &steps, &stage.defer()).await?,
                    "begin, then transact" => {
                        begin(&mut transaction).await?;
                        debit(&stage, &steps, "").await?;
                    }
                    "begin, then run" => {
                        begin(&mut transaction).await?;
                        charge(&stage, &steps).await?;
                    }
                    "begin and end, then transact" => {
                        begin(&mut transaction).await?;
                        drop(transaction);
                        debit(&stage, &steps, "").await?;
                    }
                    "begin and end, then run" => {
                        begin(&mut transaction).await?;
                        drop(transaction);
                        charge(&stage, &steps).await?;
                    }
                    "begin in transact" => {
                        let body = async |connection: &mut $connection| {
                            execute(connection, stage.insert("")).await?;
                            begin(&mut transaction).await.map(drop)
                        };
                        steps.transact("outer", body).await?;
                    }
                    "transact in transact" => {
                        let body = async |connection: &mut $connection| {
                            execute(connection, stage.insert("")).await?;
                            debit(&stage, &steps, "").await
                        };
                        steps.transact("outer", body).await?;
                    }
                    "run in transact" => {
                        let body = async |connection: &mut $connection| {
                            execute(connection, stage.insert("")).await?;
                            charge(&stage, &steps).await
                        };
                        steps.transact("outer", body).await?;
                    }
                    "steps, then begin" => {
                        charge(&stage, &steps).await?;
                        debit(&stage, &steps, "").await?;
                        if steps.attempt() == 1 {
                            return Err(Stop::Status(StatusCode::BAD_GATEWAY));
                        }
                        execute(begin(&mut transaction).await?, stage.insert("")).await?;
                    }
                    "hold a transaction" => {
                        begin(&mut transaction).await?;
                        stage.started.notify_one();
                        stage.go_on.notified().await;
                    }
                    other => panic!("no scene is called {other:?}"),
                }
                Ok(StatusCode::CREATED)
            }
        }
    };
}

handlers!(on_postgres, sqlx::Postgres, sqlx::PgConnection);
handlers!(on_sqlite, sqlx::Sqlite, sqlx::SqliteConnection);
