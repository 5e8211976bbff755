//! The handlers whose effect is a row in a `Transaction`, one for each database.

use axum::routing::post;
use axum::{Json, Router};
use idem_axum::{Execution, Transaction, idempotent};
use sqlx::Sqlite;

use super::{Asked, Carried, Task, carry_out, token};
use crate::App;
use crate::lab::ledger::{self, Row};

fn row(asked: &Asked, execution: &Execution) -> Row {
    Row {
        key: asked.key.clone(),
        token: token(execution),
    }
}

#[idempotent(ttl = "24h", scope = global, lease = "6s", in_flight = "wait", wait = "10s")]
async fn in_postgres(
    asked: Asked,
    execution: Execution,
    mut transaction: Transaction,
    Json(task): Json<Task>,
) -> Carried {
    let row = row(&asked, &execution);
    carry_out(asked, execution, task, ledger::write(&mut transaction, &row)).await
}

#[idempotent(ttl = "24h", scope = global, lease = "6s", in_flight = "wait", wait = "10s")]
async fn in_sqlite(
    asked: Asked,
    execution: Execution,
    mut transaction: Transaction<Sqlite>,
    Json(task): Json<Task>,
) -> Carried {
    let row = row(&asked, &execution);
    carry_out(asked, execution, task, ledger::write_in_file(&mut transaction, &row)).await
}

const PATH: &str = "/journaled/transacting";

/// The handler on Postgres, for [`routes`](super::routes).
pub fn transacting_in_postgres() -> Router<App> {
    Router::new().route(PATH, post(in_postgres))
}

/// The handler on SQLite, for [`routes`](super::routes).
pub fn transacting_in_sqlite() -> Router<App> {
    Router::new().route(PATH, post(in_sqlite))
}
