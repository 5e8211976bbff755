//! The connections that read.
//!
//! Owns at most [`READERS`] of them. A reader never waits for a writer. A read that is given up closes its connection.

use std::sync::{Arc, Mutex, PoisonError};

use idem_core::{BackendError, BackendErrorKind};
use sqlx::SqliteConnection;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteRow};
use tokio::sync::Semaphore;

use crate::connecting;
use crate::error::backend_error;
use sqlx::SqlStr;

/// The most connections that read at the same time.
const READERS: usize = 4;

pub(crate) struct Readers {
    options: Arc<SqliteConnectOptions>,
    permits: Semaphore,
    idle: Mutex<Vec<SqliteConnection>>,
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
        const READING: &str = "reading a record";
        let closed = || BackendError::new(BackendErrorKind::Unavailable, READING).not_written();
        let _permit = self.permits.acquire().await.map_err(|_closed| closed())?;
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => connecting::reader(&self.options).await?,
        };
        let read = sqlx::query_with(statement.clone(), arguments)
            .fetch_optional(&mut connection)
            .await;
        let row = read.map_err(|error| backend_error(READING, error).not_written())?;
        self.idle().push(connection);
        Ok(row)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<SqliteConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
