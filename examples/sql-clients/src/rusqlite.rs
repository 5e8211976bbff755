//! rusqlite, on the file of the records. It has one connection here, for which requests take turns.
//!
//! The transaction is the one writer of the file, so the handler works on a thread where it may block, and does nothing slow there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use idem_axum::{Joint, idempotent};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::runtime::Handle;

use crate::failure::Failure;
use crate::orders::{NewOrder, Receipt};

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL);";

pub(crate) fn routes(path: &str) -> rusqlite::Result<Router> {
    let connection = Connection::open(path)?;
    // idem writes to the file too.
    connection.busy_timeout(Duration::from_secs(5))?;
    // What is committed with a record has to be as durable as the record.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(SCHEMA)?;
    let connection = Arc::new(Mutex::new(connection));
    Ok(Router::new().route("/orders", post(place_order)).with_state(connection))
}

#[idempotent(ttl = "24h", scope = global, in_flight = "wait", lease = "1s")]
async fn place_order(
    State(connection): State<Arc<Mutex<Connection>>>,
    joint: Joint,
    Json(order): Json<NewOrder>,
) -> Result<Response, Failure> {
    let runtime = Handle::current();
    let placing = tokio::task::spawn_blocking(move || {
        let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let id = insert(&transaction, &order)?;
        let record = runtime.block_on(joint.record((StatusCode::CREATED, Json(Receipt { id }))))?;
        let changed = transaction.execute(record.sql(), [])?;
        let answer = record.written(changed)?;
        transaction.commit()?;
        Ok(answer)
    });
    placing.await.map_err(|error| Failure::Database(error.into()))?
}

fn insert(transaction: &Transaction<'_>, order: &NewOrder) -> rusqlite::Result<i64> {
    transaction.execute("INSERT INTO orders (item) VALUES (?1)", [&order.item])?;
    Ok(transaction.last_insert_rowid())
}
