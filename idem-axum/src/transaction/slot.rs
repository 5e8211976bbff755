//! What belongs to a request of a handler with a transaction: its place, and the engine that commits it.
//!
//! Owns which engine that is, and the answer where its backend cannot. Does not own the hand-over of the transaction:
//! [`TransactionSlot`].

use std::fmt;
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::http::Extensions;
use axum::response::Response;
use idem_http::{IdempotencyProblem, Settings, Setup as _};
use idem_sql::{SqlBackend, TransactionSlot};

use super::joint::JointState;
use crate::Idempotency;

/// What the arguments of a request that is about a transaction, its guard and its end share.
#[derive(Clone)]
pub(crate) struct Slot(Arc<Shared>);

#[derive(Default)]
struct Shared {
    sql: TransactionSlot,
    /// Of an argument that writes the record in a transaction of the handler's own.
    joint: JointState,
    /// Of the engine that will commit: the handler's own, whether from the layer or from an argument.
    settings: OnceLock<Arc<Settings>>,
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
            && !slot.0.sql.is_guarded()
        {
            return slot.clone();
        }
        let slot = Self(Arc::default());
        extensions.insert(slot.clone());
        slot
    }

    /// Names who will commit, before the handler runs; or answers in its place where the backend cannot commit it.
    pub(crate) fn guard(&self, idempotency: &Idempotency) -> Option<Response> {
        let backend = SqlBackend::of(idempotency.engine());
        if let Some(lacking) = self.lacking(backend.as_ref()) {
            tracing::error!(
                "a handler takes a {lacking}, but its records are not in that database; give it an `idem_axum::Idempotency` over that"
            );
            return Some(Self::refuse_handler(idempotency));
        }
        if self.0.joint.is_wanted() && self.0.sql.wanted().is_some() {
            tracing::error!(
                "a handler takes a Transaction and a Joint, which are two transactions for one record; take one of them"
            );
            return Some(Self::refuse_handler(idempotency));
        }
        let _ = self.0.settings.set(idempotency.settings().clone());
        self.0.sql.guard(backend, idempotency.engine().deadline());
        None
    }

    fn refuse_handler(idempotency: &Idempotency) -> Response {
        idempotency.note_unfit_handler();
        let refusal = idempotency.settings().problem(IdempotencyProblem::NotConfigured);
        refusal.map(Body::new)
    }

    /// What an argument wants that the backend cannot give.
    fn lacking(&self, backend: Option<&SqlBackend>) -> Option<&'static str> {
        match self.0.sql.wanted() {
            Some(wanted) if backend.is_none_or(|backend| backend.kind() != wanted) => Some(wanted.wants()),
            _ if backend.is_none() && self.0.joint.is_wanted() => {
                Some("Joint, which needs records in a `PostgresBackend` or `SqliteBackend`")
            }
            _ => None,
        }
    }

    /// The place of the handler's transaction.
    pub(crate) fn sql(&self) -> &TransactionSlot {
        &self.0.sql
    }

    /// The state of an argument that writes the record itself.
    pub(super) fn joint(&self) -> &JointState {
        &self.0.joint
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        self.0.settings.get().cloned().unwrap_or_default()
    }
}
