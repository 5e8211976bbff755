//! A handler's transaction, from its beginning to its end.
//!
//! Owns the connection of the handler, which belongs to the application's pool, its turn to write, and the knowledge how its
//! transaction ended. A savepoint at its beginning tells at the end whether it is still the transaction that was begun, and a commit
//! hook tells whether anything was committed meanwhile.
//!
//! | what SQLite says | what is known | [`EndKind`] |
//! |---|---|---|
//! | success | committed | – |
//! | the savepoint is missing, and something was committed | the handler ended its own transaction | `EndedByHandler` |
//! | the savepoint is missing, and nothing was committed | rolled back, because an earlier statement had failed | `FailedBefore` |
//! | before COMMIT: busy, full, an I/O error, no memory, read-only | rolled back; may succeed next time | `MayPass` |
//! | another refusal before COMMIT; a constraint in answer to COMMIT | rolled back; will be refused again | `Refused` |
//! | busy in answer to COMMIT | rolled back; may succeed next time | `MayPass` |
//! | any other answer to COMMIT | nothing | `Unknown` |
//!
//! A statement that fails does not end the transaction, unlike in Postgres: only what it did is undone.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use idem_core::{Claim, Completion, EndError, EndKind, Fenced, RecordKey, Token};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{LockedSqliteHandle, SqlitePool, SqliteTransactionManager};
use sqlx::{Sqlite, SqliteConnection};
// sqlx's own count of transactions, by which a handler's `connection.begin()` is a savepoint.
use sqlx_core::transaction::TransactionManager as _;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

use crate::change::{complete, record_step};
use crate::clock::Clock;
use crate::error::{self, primary};
use crate::store::Store;
use crate::table::text;

/// The limit of a rollback. After it the connection is closed, which rolls back as well.
const ROLLBACK_LIMIT: Duration = Duration::from_secs(1);

/// The transaction of a handler. If it is dropped, it is rolled back.
///
/// [`SqliteBackend::begin`](crate::SqliteBackend::begin) begins it.
/// [`SqliteBackend::complete_in`](crate::SqliteBackend::complete_in), [`commit`](Self::commit) or [`roll_back`](Self::roll_back)
/// end it.
pub struct JointTransaction {
    connection: PoolConnection<Sqlite>,
    /// The name of its savepoint, which no other transaction has.
    mark: String,
    /// Something was committed over the connection since the transaction began.
    has_committed: Arc<AtomicBool>,
    state: State,
    _turn: OwnedMutexGuard<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is unknown whether the transaction has begun.
    Beginning,
    Begun,
    /// It is unknown how the transaction ended.
    Ending,
    Ended,
}

/// A claim that is completed together with its handler's effects.
pub(crate) struct Completing<'a> {
    pub(crate) store: &'a Store,
    pub(crate) clock: &'a Clock,
    pub(crate) key: &'a RecordKey,
    pub(crate) claim: &'a Claim,
    pub(crate) completion: &'a Completion,
    pub(crate) ttl: Duration,
}

impl AsRef<SqliteConnection> for JointTransaction {
    fn as_ref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl JointTransaction {
    /// Begins a transaction on a connection of `pool`. If a connection is of no use, closes it and tries another one.
    pub(crate) async fn begin(pool: &SqlitePool, turns: &Arc<Mutex<()>>) -> sqlx::Result<Self> {
        // One try per existing connection and one on a new one: after that, further tries would not help.
        let mut tries = pool.size().saturating_add(1);
        loop {
            // The turn comes last: whoever has it and waits for a connection would hold up all others.
            let connection = pool.acquire().await?;
            let mark = u128::from_be_bytes(Token::random().to_bytes());
            let mut begun = Self {
                connection,
                mark: format!("idem_{mark:032x}"),
                has_committed: Arc::default(),
                state: State::Beginning,
                _turn: turns.clone().lock_owned().await,
            };
            tries -= 1;
            match begun.try_begin().await {
                Err(error) if tries > 0 && !error::is_busy(&error) => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(begun),
            }
        }
    }

    /// Begins the transaction as one that writes, which SQLite refuses if the connection is in a transaction already.
    async fn try_begin(&mut self) -> sqlx::Result<()> {
        let connection = &mut *self.connection;
        // What is committed with a record has to be as durable as the record.
        execute(connection, "PRAGMA synchronous = FULL").await?;
        SqliteTransactionManager::begin(connection, Some(text("BEGIN IMMEDIATE".to_owned()))).await?;
        execute(connection, &format!("SAVEPOINT {}", self.mark)).await?;
        let has_committed = self.has_committed.clone();
        connection.lock_handle().await?.set_commit_hook(move || {
            has_committed.store(true, Ordering::Relaxed);
            true
        });
        self.state = State::Begun;
        Ok(())
    }

    /// The connection, for the handler's statements.
    pub fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    /// Commits without a record. `asked` is called just before the commit is sent; if the future is dropped before that,
    /// nothing is committed.
    ///
    /// # Errors
    ///
    /// When the transaction was not committed, or its end is unknown: [`EndError::kind`] tells which.
    pub async fn commit(mut self, asked: impl FnOnce()) -> Result<(), EndError> {
        self.state = State::Ending;
        self.close_mark().await?;
        self.send_commit(asked).await
    }

    /// Rolls back within a second. If that takes longer, the connection is closed, which rolls back as well.
    ///
    /// # Errors
    ///
    /// [`EndKind::EndedByHandler`] if the handler has ended the transaction: its effects may be committed.
    pub async fn roll_back(mut self) -> Result<(), EndError> {
        self.state = State::Ending;
        let rolling_back = async {
            let found = self.close_mark().await;
            self.undo().await;
            found
        };
        match timeout(ROLLBACK_LIMIT, rolling_back).await {
            Ok(Err(error)) if error.kind() == EndKind::EndedByHandler => Err(error),
            _ => Ok(()),
        }
    }

    /// Completes the claim and commits.
    pub(crate) async fn complete(mut self, it: Completing<'_>, asked: impl FnOnce()) -> Result<Fenced, EndError> {
        self.state = State::Ending;
        self.close_mark().await?;
        let at = (it.clock, Clock::now());
        let statements = &it.store.statements;
        let (owner, outcome) = ((it.key, it.claim), (it.completion, it.ttl));
        let completed = complete(&mut self.connection, statements, owner, outcome, at).await;
        let written = self.commit_if_written(completed, asked).await?;
        if written == Fenced::Applied {
            it.store.waiters.wake(it.key);
        }
        Ok(written)
    }

    /// Records a step of the claim and commits.
    pub(crate) async fn record_step(
        mut self,
        (store, clock): (&Store, &Clock),
        record: (&RecordKey, &Claim),
        step: (&str, &Bytes),
        asked: impl FnOnce(),
    ) -> Result<Fenced, EndError> {
        self.state = State::Ending;
        self.close_mark().await?;
        let at = (clock, Clock::now());
        let recorded = record_step(&mut self.connection, &store.statements, record, step, at).await;
        // Steps that are gone are as good as a claim that is gone: nothing is committed.
        let recorded = recorded.map(|recorded| recorded.unwrap_or(Fenced::Superseded));
        self.commit_if_written(recorded, asked).await
    }

    /// Commits what was written to the record, or rolls back.
    async fn commit_if_written(
        mut self,
        written: sqlx::Result<Fenced>,
        asked: impl FnOnce(),
    ) -> Result<Fenced, EndError> {
        match written {
            Ok(Fenced::Applied) => {}
            Ok(Fenced::Superseded) => {
                let _ = timeout(ROLLBACK_LIMIT, self.undo()).await;
                return Ok(Fenced::Superseded);
            }
            Err(error) => return Err(self.refused(error).await),
        }
        self.send_commit(asked).await?;
        Ok(Fenced::Applied)
    }

    /// Checks that the transaction is still the one that was begun.
    async fn close_mark(&mut self) -> Result<(), EndError> {
        // A savepoint that was dropped is rolled back by the thread of the connection, which counts it until then.
        self.wait_for_thread().await?;
        if self.depth() != 1 {
            return Err(EndError::new(EndKind::EndedByHandler));
        }
        let released = execute(&mut self.connection, &format!("RELEASE {}", self.mark)).await;
        self.wait_for_thread().await?.remove_commit_hook();
        match released {
            Ok(()) => Ok(()),
            Err(error) if self.has_committed.load(Ordering::Relaxed) => {
                Err(EndError::new(EndKind::EndedByHandler).with_source(error))
            }
            Err(error) => Err(EndError::new(EndKind::FailedBefore).with_source(error)),
        }
    }

    /// Waits until the thread of the connection has done what it was asked for.
    async fn wait_for_thread(&mut self) -> Result<LockedSqliteHandle<'_>, EndError> {
        let locked = self.connection.lock_handle().await;
        locked.map_err(|error| EndError::new(EndKind::MayPass).with_source(error))
    }

    /// Rolls back after a refusal before COMMIT.
    async fn refused(&mut self, error: sqlx::Error) -> EndError {
        let _ = timeout(ROLLBACK_LIMIT, self.undo()).await;
        let kind = if error::may_pass(&error) {
            EndKind::MayPass
        } else {
            EndKind::Refused
        };
        EndError::new(kind).with_source(error)
    }

    async fn send_commit(&mut self, asked: impl FnOnce()) -> Result<(), EndError> {
        asked();
        let Err(error) = SqliteTransactionManager::commit(&mut self.connection).await else {
            self.state = State::Ended;
            return Ok(());
        };
        // In answer to these, the transaction is still open.
        let kind = match primary(&error) {
            Some(error::CONSTRAINT) => EndKind::Refused,
            Some(error::BUSY) => EndKind::MayPass,
            _ => return Err(EndError::new(EndKind::Unknown).with_source(error)),
        };
        let _ = timeout(ROLLBACK_LIMIT, self.undo()).await;
        Err(EndError::new(kind).with_source(error))
    }

    /// Rolls back, so that the connection can be lent again.
    async fn undo(&mut self) {
        if self.depth() == 1 && SqliteTransactionManager::rollback(&mut self.connection).await.is_ok() {
            self.state = State::Ended;
        }
    }

    /// The depth that sqlx counts: this transaction, and the savepoints in it.
    fn depth(&self) -> usize {
        SqliteTransactionManager::get_transaction_depth(&self.connection)
    }
}

impl Drop for JointTransaction {
    fn drop(&mut self) {
        // Closing rolls back, and takes the hook with it.
        if self.state != State::Ended {
            self.connection.close_on_drop();
        }
    }
}

impl fmt::Debug for JointTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JointTransaction").finish_non_exhaustive()
    }
}

async fn execute(connection: &mut SqliteConnection, sql: &str) -> sqlx::Result<()> {
    sqlx::raw_sql(text(sql.to_owned())).execute(connection).await.map(drop)
}
