//! The rows that handlers write in a `Transaction`: what was really done, whatever was answered.
//!
//! Owns the table, which has no constraint that would keep a second row out.

use std::time::Duration;

use idem_axum::Transaction;
use sqlx::Sqlite;
use tokio::time::timeout;

use crate::{PostgresServer, SqliteFile};

/// How long a handler tries to write its row. A connection that has fallen silent would hold it for ever.
const LIMIT: Duration = Duration::from_secs(2);

/// What one execution has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The idempotency key.
    pub(super) key: String,
    /// The fencing token of the run.
    pub(super) token: String,
}

const CREATE: &str = "CREATE TABLE ledger (key text, token text)";
const INSERT: &str = "INSERT INTO ledger (key, token) VALUES ($1, $2)";
const SELECT: &str = "SELECT key, token FROM ledger";

/// Makes the table, and a role that may not write into it.
pub(super) async fn make(postgres: &PostgresServer) {
    postgres.execute(CREATE).await;
    postgres.execute("CREATE ROLE nobody_at_all").await;
}

/// Adds a row, and says whether it is there as far as the transaction can tell.
pub(super) async fn write(transaction: &mut Transaction, row: &Row) -> bool {
    let writing = async {
        let connection = transaction.begin().await?;
        let insert = sqlx::query(INSERT);
        insert.bind(&row.key).bind(&row.token).execute(connection).await
    };
    matches!(timeout(LIMIT, writing).await, Ok(Ok(_)))
}

/// Makes the table in a file.
pub(super) async fn make_in_file(file: &SqliteFile) {
    file.execute(CREATE).await;
}

/// Adds a row in a file, and says whether it is there as far as the transaction can tell.
pub(super) async fn write_in_file(transaction: &mut Transaction<Sqlite>, row: &Row) -> bool {
    let writing = async {
        let connection = transaction.begin().await?;
        let insert = sqlx::query(INSERT);
        insert.bind(&row.key).bind(&row.token).execute(connection).await
    };
    matches!(timeout(LIMIT, writing).await, Ok(Ok(_)))
}

/// All rows that were committed.
pub(super) async fn read(postgres: &PostgresServer) -> Vec<Row> {
    let rows = sqlx::query_as(SELECT);
    let rows = rows.fetch_all(&mut postgres.connection().await).await;
    of(rows.expect("the table is there"))
}

/// All rows that were committed in a file.
pub(super) async fn read_file(file: &SqliteFile) -> Vec<Row> {
    let rows = sqlx::query_as(SELECT);
    let rows = rows.fetch_all(&mut file.stranger().await).await;
    of(rows.expect("the table is there"))
}

fn of(rows: Vec<(String, String)>) -> Vec<Row> {
    rows.into_iter().map(|(key, token)| Row { key, token }).collect()
}
