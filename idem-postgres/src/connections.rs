//! Connections of the application's pool, lent for the length of a call.
//!
//! Owns that a connection comes back to the pool or is given up, and that one that is being opened is opened, whatever
//! becomes of the call that it was for. Calls wait for each other here and not in the pool, and pass connections on to
//! each other. A statement that met another one and had to give way is repeated.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// How many calls have a connection one after the other before the pool gets it back, where others wait for it too.
const CALLS: u32 = 8;

/// The pool, and whose turn it is to take a connection out of it.
#[derive(Clone)]
pub(crate) struct Connections {
    pub(crate) pool: PgPool,
    /// As many as the pool has connections.
    turns: Arc<Semaphore>,
    passing: Arc<Passing>,
}

impl Connections {
    pub(crate) fn of(pool: PgPool) -> Self {
        let most = usize::try_from(pool.options().get_max_connections()).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            pool,
            turns: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            passing: Arc::default(),
        }
    }

    /// Lends a connection, which goes to the next call or back to the pool when it is dropped.
    ///
    /// A call that is given up while the pool opens or tries a connection for it would take that connection along. Where
    /// that takes longer than a call may, as on a server that has just come back and is asked for all connections at
    /// once, none would ever be open.
    pub(crate) async fn lend(&self, what: &'static str) -> Result<Lent, BackendError> {
        let (turn, passed) = self.turn().await;
        let mut lent = Lent {
            connection: None,
            calls: 1,
            state: State::Sound,
            passing: self.passing.clone(),
            _turn: turn,
        };
        if let Some(passed) = passed {
            (lent.connection, lent.calls) = (Some(passed.connection), passed.calls + 1);
            return Ok(lent);
        }
        let pool = self.pool.clone();
        let acquiring = async move {
            let acquired = timeout(ANSWER_LIMIT, pool.acquire()).await;
            lent.connection = Some(acquired.unwrap_or(Err(sqlx::Error::PoolTimedOut))?);
            Ok(lent)
        };
        let mut unfinished = Unfinished(Some(Box::pin(acquiring)));
        let acquired = match &mut unfinished.0 {
            Some(acquiring) => acquiring.await,
            None => Err(sqlx::Error::WorkerCrashed),
        };
        unfinished.0 = None;
        acquired.map_err(|error| backend_error(what, error))
    }

    /// Waits for a turn, and takes the connection that lies ready, if one does: also where it did not have to wait, or
    /// the pool could be asked for one that lies here.
    async fn turn(&self) -> (Option<OwnedSemaphorePermit>, Option<Passed>) {
        let mut waiting = None;
        let mut turn = self.turns.clone().try_acquire_owned().ok();
        if turn.is_none() {
            waiting = Some(Waiting::on(&self.passing));
            // It is never closed.
            turn = self.turns.clone().acquire_owned().await.ok();
        }
        let passed = self.passing.lock().connections.pop();
        // Only now, so that it is there to be taken.
        drop(waiting);
        (turn, passed)
    }
}

/// Connections on their way from one call to the next.
///
/// The pool asks the server for a sign of life whenever it lends a connection and whenever it gets one back, which is two
/// round trips beside the one of the statement. A connection that has just answered needs neither.
#[derive(Default)]
struct Passing(Mutex<Way>);

#[derive(Default)]
struct Way {
    /// How many calls wait for a turn.
    waiting: usize,
    /// No more than are waited for.
    connections: Vec<Passed>,
}

/// A connection, and how many calls have had it since it came out of the pool.
struct Passed {
    connection: PoolConnection<Postgres>,
    calls: u32,
}

impl Passing {
    fn lock(&self) -> MutexGuard<'_, Way> {
        // No change of it can be seen half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lays a connection ready for a call that waits; otherwise it goes back to the pool, as it does after so many calls
    /// that others who use the pool get their share.
    fn pass(&self, passed: Passed) {
        let mut way = self.lock();
        if passed.calls < CALLS && way.connections.len() < way.waiting {
            way.connections.push(passed);
        }
    }
}

/// A call that waits for its turn.
struct Waiting<'a>(&'a Passing);

impl<'a> Waiting<'a> {
    fn on(passing: &'a Passing) -> Self {
        passing.lock().waiting += 1;
        Self(passing)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut way = self.0.lock();
        way.waiting -= 1;
        if way.connections.len() > way.waiting {
            // Nobody is left to take it, so the pool gets it back.
            let surplus = way.connections.pop();
            drop(way);
            drop(surplus);
        }
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
    /// How many have had it since it came out of the pool, this one included.
    calls: u32,
    state: State,
    passing: Arc<Passing>,
    // After the connection, so that whoever is next finds it.
    _turn: Option<OwnedSemaphorePermit>,
}

/// What the connection said last.
enum State {
    /// It has answered.
    Sound,
    /// A statement has been sent, and not been answered.
    Asked,
    /// A statement failed, perhaps with the connection.
    Failed,
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
        self.state = State::Asked;
        let answered = query.fetch_optional(&mut **connection).await;
        self.state = if answered.is_ok() { State::Sound } else { State::Failed };
        answered
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        match self.state {
            State::Sound => self.passing.pass(Passed {
                connection,
                calls: self.calls,
            }),
            // The pool looks at what it gets back.
            State::Failed => {}
            State::Asked => {
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
    }
}
