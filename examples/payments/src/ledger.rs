//! The ledger: accounts and entries, in Postgres or `SQLite`.
//!
//! Owns the statements, and how an entry is written once: in the transaction of its step where the records are beside the ledger, and
//! by a key of its own where they are elsewhere.

use std::error::Error;
use std::time::Duration;

use idem_axum::sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use idem_axum::sqlx::{self, PgConnection, PgPool, SqliteConnection};
use idem_axum::{Idempotency, PostgresBackend, SqliteBackend, Steps};

use crate::payments::{Payment, PaymentError};

/// Statements that are executed together are a transaction of their own.
const POSTGRES: &str = "
    SELECT pg_advisory_xact_lock(7381);
    CREATE TABLE IF NOT EXISTS accounts (name text PRIMARY KEY, cents bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS ledger (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        request text UNIQUE,
        account text NOT NULL REFERENCES accounts,
        reference text NOT NULL,
        cents bigint NOT NULL,
        charge text NOT NULL
    );
    INSERT INTO accounts VALUES ('acme', 1000000) ON CONFLICT DO NOTHING";

const SQLITE: &str = "
    CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, cents INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS ledger (
        id INTEGER PRIMARY KEY,
        request TEXT UNIQUE,
        account TEXT NOT NULL REFERENCES accounts,
        reference TEXT NOT NULL,
        cents INTEGER NOT NULL,
        charge TEXT NOT NULL
    );
    INSERT INTO accounts VALUES ('acme', 1000000) ON CONFLICT DO NOTHING";

/// Where the ledger is, and whether its records are there too.
#[derive(Clone)]
pub(crate) enum Ledger {
    /// Entries are committed together with the records of their steps.
    Postgres,
    Sqlite,
    /// The records are in Redis.
    Apart(PgPool),
}

impl Ledger {
    /// A ledger whose records are in the same database.
    pub(crate) async fn with_records(url: &str) -> Result<(Self, Idempotency), Box<dyn Error>> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            // The backend makes the file, so that only its owner can read it.
            let backend = SqliteBackend::open(path).await?;
            let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(path)).await?;
            sqlx::raw_sql(SQLITE).execute(&pool).await?;
            return Ok((Self::Sqlite, Idempotency::new(backend)));
        }
        let pool = PgPool::connect(url).await?;
        sqlx::raw_sql(POSTGRES).execute(&pool).await?;
        let backend = PostgresBackend::new(pool).with_sweeper(Duration::from_mins(1));
        backend.migrate().await?;
        Ok((Self::Postgres, Idempotency::new(backend)))
    }

    /// A ledger in Postgres whose records are elsewhere.
    pub(crate) async fn apart(url: &str) -> Result<Self, Box<dyn Error>> {
        let pool = PgPool::connect(url).await?;
        sqlx::raw_sql(POSTGRES).execute(&pool).await?;
        Ok(Self::Apart(pool))
    }

    /// Debits the account, and writes an entry. Returns the entry's id.
    pub(crate) async fn debit(&self, steps: &Steps, payment: &Payment, charge: &str) -> Result<i64, PaymentError> {
        match self {
            Self::Postgres => {
                let debit = async |connection: &mut PgConnection| in_postgres(connection, None, payment, charge).await;
                steps.transact("debit", debit).await
            }
            Self::Sqlite => {
                let debit = async |connection: &mut SqliteConnection| in_sqlite(connection, payment, charge).await;
                steps.transact("debit", debit).await
            }
            Self::Apart(pool) => {
                let debit = async |step: idem_axum::Step| {
                    let mut transaction = pool.begin().await?;
                    let key = step.downstream_key();
                    let entry = in_postgres(&mut transaction, Some(&key), payment, charge).await?;
                    transaction.commit().await?;
                    Ok(entry)
                };
                steps.run("debit", debit).await
            }
        }
    }
}

/// Debits in a transaction. An entry that the same `request` has written already is returned in place of a second one.
async fn in_postgres(
    connection: &mut PgConnection,
    request: Option<&str>,
    payment: &Payment,
    charge: &str,
) -> Result<i64, PaymentError> {
    let entry = "INSERT INTO ledger (request, account, reference, cents, charge) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (request) DO NOTHING RETURNING id";
    let entry = sqlx::query_scalar(entry)
        .bind(request)
        .bind(&payment.account)
        .bind(&payment.reference)
        .bind(i64::from(payment.cents))
        .bind(charge);
    let Some(id) = entry.fetch_optional(&mut *connection).await? else {
        let written = sqlx::query_scalar("SELECT id FROM ledger WHERE request = $1").bind(request);
        return Ok(written.fetch_one(connection).await?);
    };
    let debit = sqlx::query("UPDATE accounts SET cents = cents - $2 WHERE name = $1");
    let debit = debit.bind(&payment.account).bind(i64::from(payment.cents));
    debit.execute(connection).await?;
    Ok(id)
}

async fn in_sqlite(connection: &mut SqliteConnection, payment: &Payment, charge: &str) -> Result<i64, PaymentError> {
    let entry = "INSERT INTO ledger (account, reference, cents, charge) VALUES (?, ?, ?, ?) RETURNING id";
    let entry = sqlx::query_scalar(entry)
        .bind(&payment.account)
        .bind(&payment.reference)
        .bind(i64::from(payment.cents))
        .bind(charge);
    let id = entry.fetch_one(&mut *connection).await?;
    let debit = sqlx::query("UPDATE accounts SET cents = cents - ?2 WHERE name = ?1");
    let debit = debit.bind(&payment.account).bind(i64::from(payment.cents));
    debit.execute(connection).await?;
    Ok(id)
}
