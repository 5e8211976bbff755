//! The connections that read.
//!
//! Owns at most [`READERS`] of them. A reader never waits for a writer. A read that is given up closes its connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use idem_core::{BackendError, BackendErrorKind};
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteRow};
use sqlx::{SqlStr, SqliteConnection};
use tokio::sync::{AcquireError, Semaphore};

use crate::connecting;
use crate::error::backend_error;

/// The most connections that read at the same time.
const READERS: usize = 4;

pub(crate) struct Readers {
    options: Arc<SqliteConnectOptions>,
    permits: Semaphore,
    idle: Mutex<Idle>,
}

const READING: &str = "reading a record";

fn gone(_: AcquireError) -> BackendError {
    BackendError::new(BackendErrorKind::Unavailable, READING).not_written()
}

#[derive(Default)]
struct Idle {
    connections: Vec<SqliteConnection>,
    /// How often all were closed. A connection that was lent before is not taken back.
    closed: u64,
}

impl Readers {
    pub(crate) fn new(options: Arc<SqliteConnectOptions>) -> Self {
        Self {
            options,
            permits: Semaphore::new(READERS),
            idle: Mutex::default(),
        }
    }

    /// The row that `statement` finds, if any.
    pub(crate) async fn read(
        &self,
        statement: &SqlStr,
        arguments: SqliteArguments,
    ) -> Result<Option<SqliteRow>, BackendError> {
        let _permit = self.permits.acquire().await.map_err(gone)?;
        let (mut connection, closed) = self.lend().await?;
        let query = sqlx::query_with(statement.clone(), arguments);
        let read = query.fetch_optional(&mut connection).await;
        let row = read.map_err(|error| backend_error(READING, error).not_written())?;
        self.put_back(connection, closed);
        Ok(row)
    }

    /// All rows that `statement` finds.
    pub(crate) async fn read_all(
        &self,
        statement: &SqlStr,
        arguments: SqliteArguments,
    ) -> Result<Vec<SqliteRow>, BackendError> {
        let _permit = self.permits.acquire().await.map_err(gone)?;
        let (mut connection, closed) = self.lend().await?;
        let query = sqlx::query_with(statement.clone(), arguments);
        let read = query.fetch_all(&mut connection).await;
        let rows = read.map_err(|error| backend_error(READING, error).not_written())?;
        self.put_back(connection, closed);
        Ok(rows)
    }

    /// A connection, and how often all were closed before.
    async fn lend(&self) -> Result<(SqliteConnection, u64), BackendError> {
        let (idle, closed) = self.take();
        let connection = match idle {
            Some(connection) => connection,
            None => connecting::reader(&self.options).await?,
        };
        Ok((connection, closed))
    }

    fn put_back(&self, connection: SqliteConnection, closed: u64) {
        let mut idle = self.idle();
        if idle.closed == closed {
            idle.connections.push(connection);
        }
    }

    /// Closes those that do not read, so that the next ones open what has the file's name then.
    pub(crate) fn close(&self) {
        let mut idle = self.idle();
        idle.connections.clear();
        idle.closed += 1;
    }

    fn take(&self) -> (Option<SqliteConnection>, u64) {
        let mut idle = self.idle();
        (idle.connections.pop(), idle.closed)
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
