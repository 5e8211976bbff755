//! Where the transaction of a request is while neither its handler nor its commit has it.
//!
//! Owns the hand-over from the handler's argument to whatever ends the transaction, and who may commit it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::Extensions;
use axum::response::Response;
use idem_core::Engine;
use idem_http::{IdempotencyProblem, Settings, Setup as _};

use super::database::{Begun, Kind, SqlBackend};
use super::joint::JointState;
use crate::Idempotency;

/// What is found in a slot whose handler has ended.
pub(super) enum Left {
    /// No transaction was begun.
    Nothing,
    /// The handler ended with it.
    Transaction(Begun),
    /// It is still in use, so that it can be neither committed nor waited for.
    InUse,
}

/// The place of a request's transaction while neither its handler nor its commit has it.
#[derive(Clone)]
pub(crate) struct Slot(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// The database in which an argument wants it.
    wanted: OnceLock<Kind>,
    /// Of an argument that writes the record in a transaction of the handler's own.
    joint: JointState,
    /// Who will commit: the handler's own engine, whether from the layer or from an argument.
    committer: OnceLock<Committer>,
    places: Mutex<Places>,
}

struct Committer {
    backend: Option<SqlBackend>,
    settings: Arc<Settings>,
    /// How long a call to the backend may take.
    deadline: Duration,
}

/// Where the transactions of a request are.
#[derive(Default)]
pub(super) struct Places {
    /// That of the handler.
    pub(super) transaction: State,
    /// How many steps have one of their own.
    pub(super) steps: usize,
}

#[derive(Default)]
pub(super) enum State {
    #[default]
    NotBegun,
    /// The handler has it.
    Lent,
    Ended(Begun),
    /// Whatever comes now is too late, and is rolled back.
    Closed,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

impl Slot {
    /// The one of a request, for its argument and its guard. One that has a committer belongs to a handler that hands
    /// its request on, and not to the next one.
    pub(crate) fn of(extensions: &mut Extensions) -> Self {
        if let Some(slot) = extensions.get::<Self>()
            && slot.0.committer.get().is_none()
        {
            return slot.clone();
        }
        let slot = Self(Arc::default());
        extensions.insert(slot.clone());
        slot
    }

    /// Names who will commit, before the handler runs; or answers in its place where the backend cannot commit it.
    pub(crate) fn guard(&self, idempotency: &Idempotency) -> Option<Response> {
        let backend = idempotency.sql().cloned();
        if let Some(lacking) = self.lacking(backend.as_ref()) {
            tracing::error!(
                "a handler takes a {lacking}, but its records are not in that database; give it an `idem_axum::Idempotency` over that"
            );
            return Some(Self::refuse_handler(idempotency));
        }
        if self.0.joint.is_wanted() && self.0.wanted.get().is_some() {
            tracing::error!(
                "a handler takes a Transaction and a Joint, which are two transactions for one record; take one of them"
            );
            return Some(Self::refuse_handler(idempotency));
        }
        let _ = self.0.committer.set(Committer {
            backend,
            settings: idempotency.settings().clone(),
            deadline: idempotency.engine().deadline(),
        });
        None
    }

    fn refuse_handler(idempotency: &Idempotency) -> Response {
        idempotency.note_unfit_handler();
        let refusal = idempotency.settings().problem(IdempotencyProblem::NotConfigured);
        refusal.map(Body::new)
    }

    /// What an argument wants that the backend cannot give.
    fn lacking(&self, backend: Option<&SqlBackend>) -> Option<&'static str> {
        match self.0.wanted.get() {
            Some(wanted) if backend.is_none_or(|backend| backend.kind() != *wanted) => Some(wanted.wants()),
            _ if backend.is_none() && self.0.joint.is_wanted() => {
                Some("Joint, which needs records in a `PostgresBackend` or `SqliteBackend`")
            }
            _ => None,
        }
    }

    pub(super) async fn begin(&self) -> sqlx::Result<Begun> {
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

    pub(super) fn put(&self, begun: Begun) {
        let state = &mut self.places().transaction;
        if matches!(*state, State::Lent) {
            *state = State::Ended(begun);
        }
    }

    /// Takes the transaction out. What comes back later is rolled back.
    pub(super) fn close(&self) -> Left {
        match std::mem::replace(&mut self.places().transaction, State::Closed) {
            State::NotBegun | State::Closed => Left::Nothing,
            State::Ended(transaction) => Left::Transaction(transaction),
            State::Lent => Left::InUse,
        }
    }

    /// An argument wants a transaction in this database. Of two arguments that do not agree, the first one counts, and the other
    /// one cannot begin.
    pub(super) fn note_wanted(&self, kind: Kind) {
        let _ = self.0.wanted.set(kind);
    }

    /// The state of an argument that writes the record itself.
    pub(super) fn joint(&self) -> &JointState {
        &self.0.joint
    }

    /// The backend by which the transaction is committed.
    pub(crate) fn backend(&self) -> Option<&SqlBackend> {
        self.0.committer.get()?.backend.as_ref()
    }

    /// How long a call to the backend may take that is about no claim.
    pub(crate) fn deadline(&self) -> Duration {
        let committer = self.0.committer.get();
        committer.map_or(Engine::DEFAULT_DEADLINE, |committer| committer.deadline)
    }

    pub(super) fn places(&self) -> MutexGuard<'_, Places> {
        self.0.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the two belong to the same request.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        let committer = self.0.committer.get();
        committer
            .map(|committer| committer.settings.clone())
            .unwrap_or_default()
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
