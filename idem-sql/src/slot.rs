//! Where the transaction of a run is while neither its work nor its commit has it.
//!
//! Owns the hand-over from the work to whatever ends the transaction, and who may commit it.

use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use idem_core::Engine;

use crate::database::{Begun, Kind, SqlBackend, TransactionDatabase};

/// What is found in a slot whose work has ended.
#[derive(Debug)]
pub enum Left {
    /// No transaction was begun.
    Nothing,
    /// The work ended with it.
    Transaction(Begun),
    /// It is still in use, so that it can be neither committed nor waited for.
    InUse,
}

/// The place of a run's transaction while neither its work nor its commit has it.
///
/// One value belongs to one run of a handler or a task. It has its place in memory while the run lasts, as in an `Arc`.
#[derive(Default)]
pub struct TransactionSlot {
    /// The database in which the work wants it.
    wanted: OnceLock<Kind>,
    /// Who will commit: the run's own engine.
    committer: OnceLock<Committer>,
    places: Mutex<Places>,
}

struct Committer {
    backend: Option<SqlBackend>,
    /// How long a call to the backend may take.
    deadline: Duration,
}

/// Where the transactions of a run are.
#[derive(Default)]
pub(crate) struct Places {
    /// That of the handler or the task.
    pub(crate) transaction: State,
    /// How many steps have one of their own.
    pub(crate) steps: usize,
}

#[derive(Default)]
pub(crate) enum State {
    #[default]
    NotBegun,
    /// The handler has it.
    Lent,
    Ended(Begun),
    /// Whatever comes now is too late, and is rolled back.
    Closed,
}

impl fmt::Debug for TransactionSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionSlot").finish_non_exhaustive()
    }
}

impl TransactionSlot {
    /// Notes that the work wants a transaction in this database. Of two that do not agree, the first one counts, and the other one
    /// cannot begin.
    pub fn want<D: TransactionDatabase>(&self) {
        let _ = self.wanted.set(D::KIND);
    }

    /// The database in which the work wants a transaction, if that is known.
    pub fn wanted(&self) -> Option<Kind> {
        self.wanted.get().copied()
    }

    /// Names who will commit, before the work begins: the `backend` of its records, whose calls may take as long as `deadline`.
    pub fn guard(&self, backend: Option<SqlBackend>, deadline: Duration) {
        let _ = self.committer.set(Committer { backend, deadline });
    }

    /// Whether it is known who will commit.
    pub fn is_guarded(&self) -> bool {
        self.committer.get().is_some()
    }

    /// Begins the transaction of the work, which gives it back by [`put`](Self::put).
    ///
    /// # Errors
    ///
    /// [`sqlx::Error::Configuration`] if nothing would commit it, if it is the second one, and while a
    /// [`transact`](crate::StepTransaction) runs. Otherwise if the pool has no connection or the database cannot be reached.
    pub async fn begin(&self) -> sqlx::Result<Begun> {
        let Some(backend) = self.backend() else {
            let advice = "nothing would commit it: the handler of a Transaction needs #[idempotent]";
            return Err(sqlx::Error::Configuration(advice.into()));
        };
        self.places().check_begin()?;
        let begun = backend.begin().await?;
        let mut places = self.places();
        // A step may have begun meanwhile.
        places.check_begin()?;
        places.transaction = State::Lent;
        Ok(begun)
    }

    /// Gives the transaction back. If its work has ended already, it is rolled back.
    pub fn put(&self, begun: Begun) {
        let state = &mut self.places().transaction;
        if matches!(*state, State::Lent) {
            *state = State::Ended(begun);
        }
    }

    /// Takes the transaction out. What comes back later is rolled back.
    pub fn close(&self) -> Left {
        match std::mem::replace(&mut self.places().transaction, State::Closed) {
            State::NotBegun | State::Closed => Left::Nothing,
            State::Ended(transaction) => Left::Transaction(transaction),
            State::Lent => Left::InUse,
        }
    }

    /// The backend by which the transaction is committed.
    pub fn backend(&self) -> Option<&SqlBackend> {
        self.committer.get()?.backend.as_ref()
    }

    /// How long a call to the backend may take that is about no claim.
    pub fn deadline(&self) -> Duration {
        let committer = self.committer.get();
        committer.map_or(Engine::DEFAULT_DEADLINE, |committer| committer.deadline)
    }

    pub(crate) fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// Whether the handler's transaction may begin.
    fn check_begin(&self) -> sqlx::Result<()> {
        if self.steps > 0 {
            let advice = "a handler's Transaction does not begin while a `transact` of it runs";
            return Err(sqlx::Error::Configuration(advice.into()));
        }
        match self.transaction {
            State::NotBegun => Ok(()),
            State::Lent | State::Ended(_) | State::Closed => {
                Err(sqlx::Error::Configuration("a handler has one Transaction".into()))
            }
        }
    }
}
