//! A database file of SQLite that several processes share, and what a stranger can do to it.

use std::path::PathBuf;
use std::time::Duration;

use idem_axum::SqliteBackend;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{AssertSqlSafe, ConnectOptions as _, SqliteConnection};
use tempfile::TempDir;

use crate::disk::{self, Disk};

/// How much room the disk has, in mebibytes: for the records and the log of a round of the lab.
const ROOM: u64 = 256;

/// How long a stranger waits for its turn to write.
const PATIENCE: Duration = Duration::from_secs(10);

/// A database with the table of records; it is removed when this is dropped.
#[derive(Debug)]
pub struct SqliteFile {
    /// The file system that has the file, where one could be mounted.
    disk: Option<Disk>,
    folder: TempDir,
}

impl SqliteFile {
    /// A new file in a temporary folder.
    pub async fn create() -> Self {
        Self::create_on(None).await
    }

    /// The same on a disk of its own, where one can be mounted.
    pub async fn create_on_disk() -> Self {
        Self::create_on(Disk::mount(ROOM)).await
    }

    async fn create_on(disk: Option<Disk>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = Self { disk, folder };
        // Dropped at once: the processes are the ones that have it open.
        drop(SqliteBackend::open(file.path()).await.expect("a new file"));
        file
    }

    /// As `BACKEND_URL`.
    pub fn url(&self) -> String {
        format!("sqlite:{}", self.path().display())
    }

    /// Where the file is.
    pub fn path(&self) -> PathBuf {
        let folder = self.disk.as_ref().map(Disk::path);
        folder.unwrap_or_else(|| self.folder.path().to_owned()).join("idem.db")
    }

    /// Where the log is.
    pub fn log(&self) -> PathBuf {
        self.path().with_extension("db-wal")
    }

    /// The disk that has the file.
    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
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

    /// A connection of a stranger, which waits long for a lock.
    pub async fn stranger(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.path()).busy_timeout(PATIENCE);
        options.connect().await.expect("the file is there")
    }

    /// Executes one statement as a stranger, and returns how many rows it has changed.
    pub async fn execute(&self, sql: &str) -> u64 {
        execute(&mut self.stranger().await, sql).await
    }

    /// The one number that a query finds.
    pub async fn query(&self, sql: &str) -> i64 {
        let query = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
        let found = query.fetch_one(&mut self.stranger().await).await;
        found.expect("a valid query")
    }

    /// Keeps others from writing until the connection is dropped.
    pub async fn hold_writes(&self) -> SqliteConnection {
        self.hold("BEGIN IMMEDIATE").await
    }

    /// Reads what the database is now until the connection is dropped, so that the log cannot be emptied.
    pub async fn hold_snapshot(&self) -> SqliteConnection {
        let mut connection = self.hold("BEGIN").await;
        execute(&mut connection, "SELECT count(*) FROM idem_records").await;
        connection
    }

    async fn hold(&self, begin: &str) -> SqliteConnection {
        let mut connection = self.stranger().await;
        execute(&mut connection, begin).await;
        connection
    }

    /// Empties the log, so that whatever is written next needs room. Whether it could be: somebody may read it.
    pub async fn empty_log(&self) -> bool {
        let mut connection = self.stranger().await;
        execute(&mut connection, "PRAGMA busy_timeout = 200").await;
        let emptied = sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)");
        let is_busy: sqlx::Result<i64> = emptied.fetch_one(&mut connection).await;
        is_busy.is_ok_and(|is_busy| is_busy == 0)
    }

    /// Forbids every write to the file and its log, also by those who have them open; or allows it again. Whether that was possible.
    pub fn set_read_only(&self, is_read_only: bool) -> bool {
        let changed = [self.path(), self.log()].map(|file| disk::set_immutable(&file, is_read_only));
        changed == [true; 2]
    }
}

async fn execute(connection: &mut SqliteConnection, sql: &str) -> u64 {
    let executed = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await;
    executed.expect("a valid statement").rows_affected()
}
