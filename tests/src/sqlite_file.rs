//! A database file of SQLite that several processes share, and what a stranger can do to it.

use std::path::PathBuf;

use idem_axum::SqliteBackend;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{AssertSqlSafe, ConnectOptions as _, SqliteConnection};
use tempfile::TempDir;

/// A database with the table of records; it is removed when this is dropped.
#[derive(Debug)]
pub struct SqliteFile {
    folder: TempDir,
}

impl SqliteFile {
    /// A new file in a temporary folder.
    pub async fn create() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = Self { folder };
        // Dropped at once: the processes are the ones that have it open.
        drop(SqliteBackend::open(file.path()).await.expect("a new file"));
        file
    }

    /// Where the file is.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("idem.db")
    }

    /// A pool of an application whose tables are in the file.
    pub async fn pool(&self) -> SqlitePool {
        let options = SqliteConnectOptions::new().filename(self.path());
        SqlitePool::connect_with(options).await.expect("the file is there")
    }

    /// A backend on the file, as each process has one.
    pub async fn backend(&self) -> SqliteBackend {
        SqliteBackend::new(self.pool().await)
    }

    /// A connection of a stranger.
    pub async fn stranger(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.path());
        options.connect().await.expect("the file is there")
    }

    /// Executes statements as a stranger, and returns how many rows they have changed.
    pub async fn execute(&self, sql: &str) -> u64 {
        let statements = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        let executed = statements.execute(&mut self.stranger().await).await;
        executed.expect("a valid statement").rows_affected()
    }

    /// The one number that a query finds.
    pub async fn query(&self, sql: &str) -> i64 {
        let query = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
        let found = query.fetch_one(&mut self.stranger().await).await;
        found.expect("a valid query")
    }
}
