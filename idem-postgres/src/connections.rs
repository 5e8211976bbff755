//! Connections of the application's pool, lent for the length of a call.
//!
//! Owns that a connection comes back to the pool or is given up, and that one that is being opened is opened, whatever
//! becomes of the call that it was for. Calls wait for each other here and not in the pool. A statement that met another one and had to give way is repeated.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use idem_core::BackendError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Connection as _, PgPool, Postgres};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::{backend_error, is_collision};

/// How often a statement that had to give way is tried.
const TRIES: usize = 8;

/// How long a connection has to answer before it is given up: one that is opened or tried, and one whose statement was
/// given up.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// The pool, and whose turn it is to take a connection out of it.
#[derive(Clone)]
pub(crate) struct Connections {
    pub(crate) pool: PgPool,
    /// As many as the pool has connections.
    turns: Arc<Semaphore>,
}

impl Connections {
    pub(crate) fn of(pool: PgPool) -> Self {
        let most = usize::try_from(pool.options().get_max_connections()).unwrap_or(Semaphore::MAX_PERMITS);
        let turns = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self { pool, turns }
    }

    /// Lends a connection, which is given back when it is dropped.
    ///
    /// A call that is given up while the pool opens or tries a connection for it would take that connection along. Where
    /// that takes longer than a call may, as on a server that has just come back and is asked for all connections at
    /// once, none would ever be open.
    pub(crate) async fn lend(&self, what: &'static str) -> Result<Lent, BackendError> {
        // It is never closed.
        let turn = self.turns.clone().acquire_owned().await.ok();
        let pool = self.pool.clone();
        let acquiring = async move {
            let acquired = timeout(ANSWER_LIMIT, pool.acquire()).await;
            let connection = acquired.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
            Ok(Lent {
                connection: Some(connection),
                is_asked: false,
                _turn: turn,
            })
        };
        let mut unfinished = Unfinished(Some(Box::pin(acquiring)));
        let acquired = match &mut unfinished.0 {
            Some(acquiring) => acquiring.await,
            None => Err(sqlx::Error::WorkerCrashed),
        };
        unfinished.0 = None;
        acquired.map_err(|error| backend_error(what, error))
    }
}

/// What is finished in the background when nobody waits for it any more.
struct Unfinished(Option<Pin<Box<dyn Future<Output = sqlx::Result<Lent>> + Send>>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(acquiring) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(acquiring);
        }
    }
}

/// A connection whose statement may be given up half-way. The pool would wait for its answer for as long as the network
/// does, and lend nothing in its place.
pub(crate) struct Lent {
    connection: Option<PoolConnection<Postgres>>,
    /// A statement has been sent, and not been answered.
    is_asked: bool,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Lent {
    /// Executes a statement and returns its first row. It has taken effect, and as lasting as the server is set up to
    /// make it, once this resolves.
    pub(crate) async fn ask<'q>(
        &mut self,
        what: &'static str,
        query: impl Fn() -> Query<'q, Postgres, PgArguments>,
    ) -> Result<Option<PgRow>, BackendError> {
        let mut tries = 1;
        loop {
            match self.try_ask(query()).await {
                Err(error) if is_collision(&error) && tries < TRIES => tries += 1,
                answered => return answered.map_err(|error| backend_error(what, error)),
            }
        }
    }

    async fn try_ask(&mut self, query: Query<'_, Postgres, PgArguments>) -> sqlx::Result<Option<PgRow>> {
        let Some(connection) = &mut self.connection else {
            return Err(sqlx::Error::WorkerCrashed);
        };
        self.is_asked = true;
        let answered = query.fetch_optional(&mut **connection).await;
        self.is_asked = false;
        answered
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take().filter(|_| self.is_asked) else {
            return;
        };
        let Ok(runtime) = Handle::try_current() else {
            drop(connection.detach());
            return;
        };
        runtime.spawn(async move {
            if !matches!(timeout(ANSWER_LIMIT, connection.ping()).await, Ok(Ok(()))) {
                drop(connection.detach());
            }
        });
    }
}
