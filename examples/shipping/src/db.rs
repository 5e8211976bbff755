//! The orders table, in `SQLite` or Postgres.
//!
//! Owns the pool, the migrations and every query. The SQL is the same for both: `$1` binds in either, so one pool of
//! the `Any` driver serves them. A row that is written together with its record is written on idem's connection.

use std::time::Duration;

use sqlx::any::{AnyPoolOptions, install_default_drivers};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AnyConnection, AnyPool, Connection as _, SqliteConnection};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::orders::{NewOrder, Order};
use crate::tenant::Tenant;

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// The longest anything waits for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Why the database could not be made ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("connecting failed")]
    Connect(#[source] sqlx::Error),
    #[error("there was no connection within {} s", CONNECT_LIMIT.as_secs())]
    TimedOut(#[from] Elapsed),
    #[error("the schema could not be brought up to date")]
    Migrate(#[from] MigrateError),
}

/// A pool over an up-to-date schema. Clones share it.
#[derive(Clone)]
pub(crate) struct Db(AnyPool);

impl Db {
    /// Connects and migrates. A single connection does both, for the pool would try for seconds to reach a server
    /// that is not there, and then not say why it could not.
    pub(crate) async fn open(url: &str) -> Result<Self, OpenError> {
        install_default_drivers();
        let connecting = timeout(CONNECT_LIMIT, AnyConnection::connect(url)).await?;
        let mut connection = connecting.map_err(OpenError::Connect)?;
        if url.starts_with("sqlite:") {
            // The file remembers it. Readers and the writer do not block each other then, and writers queue for up to
            // the five seconds of busy timeout that every connection has by default.
            sqlx::raw_sql("PRAGMA journal_mode = WAL")
                .execute(&mut connection)
                .await
                .map_err(OpenError::Connect)?;
            SQLITE.run(&mut connection).await?;
        } else {
            POSTGRES.run(&mut connection).await?;
        }
        connection.close().await.map_err(OpenError::Connect)?;
        let pool = AnyPoolOptions::new()
            .acquire_timeout(CONNECT_LIMIT)
            .connect_lazy(url)
            .map_err(OpenError::Connect)?;
        Ok(Self(pool))
    }

    /// Asks whether the database answers.
    pub(crate) async fn check(&self) -> sqlx::Result<()> {
        sqlx::query("SELECT 1").execute(&self.0).await.map(|_| ())
    }

    /// Writes a row by itself and returns its id. A row that the same `request` has written already is returned in its place.
    #[tracing::instrument(skip_all)]
    pub(crate) async fn insert(&self, request: Option<&str>, tenant: &Tenant, order: &NewOrder) -> sqlx::Result<i64> {
        // DO NOTHING would return no id where the row is there.
        sqlx::query_scalar(
            "INSERT INTO orders (request, tenant, order_id, vendor, address) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (request) DO UPDATE SET request = excluded.request RETURNING id",
        )
        .bind(request)
        .bind(tenant.name())
        .bind(&order.order_id)
        .bind(&order.vendor)
        .bind(&order.address)
        .fetch_one(&self.0)
        .await
    }

    /// The tenant's rows, oldest first.
    pub(crate) async fn orders(&self, tenant: &Tenant) -> sqlx::Result<Vec<Order>> {
        sqlx::query_as(
            "SELECT id AS shipping_id, order_id, vendor, address, created_at FROM orders WHERE tenant = $1 ORDER BY id",
        )
        .bind(tenant.name())
        .fetch_all(&self.0)
        .await
    }

    /// Ends every connection once it is free.
    pub(crate) async fn close(&self) {
        self.0.close().await;
    }
}

/// Writes a row in a transaction and returns its id. It is there once somebody commits the transaction.
#[tracing::instrument(name = "insert", skip_all)]
pub(crate) async fn insert_in(
    connection: &mut SqliteConnection,
    tenant: &Tenant,
    order: &NewOrder,
) -> sqlx::Result<i64> {
    sqlx::query_scalar("INSERT INTO orders (tenant, order_id, vendor, address) VALUES ($1, $2, $3, $4) RETURNING id")
        .bind(tenant.name())
        .bind(&order.order_id)
        .bind(&order.vendor)
        .bind(&order.address)
        .fetch_one(connection)
        .await
}
