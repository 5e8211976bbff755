//! The handler's effects and its outcome in one transaction of Postgres or SQLite: all of it, or nothing.
//!
//! Owns the extractor, and the way of a transaction from the handler to the commit:
//!
//! 1. [`Transaction`] is extracted before the claim, as every argument is, and costs nothing then: a replay opens no
//!    transaction. The handler begins it, by [`Transaction::begin`], on a connection of the application's pool.
//! 2. When the handler's future has ended, and its arguments with it, the transaction lies in the request's [`Slot`],
//!    where the run finds it. If the handler panicked, the run does not take it, and it is rolled back there.
//! 3. A 2xx or 3xx that is kept, or whatever has a verdict that keeps it, is written into the record through the same transaction, fenced by the claim's token, and
//!    the one commit makes both last. That is the engine's [`Joint`](idem_core::HandlerResult::Joint); the engine knows neither sqlx nor what
//!    is in the transaction. Any other answer rolls back, as an early return does everywhere: one that is kept (a 404, say)
//!    is then recorded by itself, and one that is not (5xx, 408, 425, 429) releases the claim.
//!
//! In Postgres, the claim is renewed over other connections and in another table while the handler runs, and the transaction holds
//! no lock on the record: only its last statement does, for the length of the commit. In SQLite, the transaction is the one writer
//! from its beginning to its end: nobody can renew the claim, and nobody can take it over either.
//!
//! | what happens | effects | record | client |
//! |---|---|---|---|
//! | the process dies before the commit | none | lapses; the next attempt runs | nothing |
//! | it dies after the commit | all | completed | nothing; its retry is a replay |
//! | another attempt has taken the claim over | none | the other's | 409 `in-flight` |
//! | the handler answers with a kept 4xx, without a verdict | none | completed | that answer |
//! | the answer has `Verdict::Keep` or `KeepFor` | all | completed | that answer |
//! | the answer has `Verdict::Release` | none | released | that answer |
//! | the answer has `Verdict::Unknown` | none | unknown | that answer |
//! | the handler answers with 500, or panics | none | released | that answer |
//! | the answer is to be committed, and the server refuses | none | released | 500 or 503 `rolled-back` |
//! | the commit is sent, and its answer is lost | all or none | completed or released | 503 `not-committed`; its retry finds out |
//!
//! In the last case, the engine releases the claim: a `DELETE` that waits until the transaction that wrote the row has ended, and
//! then finds a claim to release or a completion to leave alone. So nothing is guessed. The backends have the sorting of what their
//! databases say.

mod ending;
mod joint;
mod slot;

use std::convert::Infallible;
use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use idem_sql::{Begun, TransactionDatabase};

pub(crate) use self::joint::JointClaim;
pub use self::joint::{Joint, JointError, JointErrorKind, JointRecord};
pub(crate) use self::slot::Slot;
#[cfg(doc)]
use crate::Verdict;

/// An extractor for handlers under `#[idempotent]` whose effects are rows in the same Postgres as the records: they and
/// the record of them are committed together, or not at all.
///
/// ```
/// use axum::http::StatusCode;
/// use idem_axum::{Transaction, idempotent, sqlx};
///
/// #[idempotent(ttl = "24h", scope = global)]
/// async fn charge(mut transaction: Transaction, account: String) -> Result<StatusCode, StatusCode> {
///     let connection = transaction.begin().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
///     sqlx::query("INSERT INTO ledger (account, cents) VALUES ($1, -100)")
///         .bind(account)
///         .execute(connection)
///         .await
///         .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
///     Ok(StatusCode::CREATED) // the row, the record and this answer are committed once it is returned
/// }
/// ```
///
/// | answer | what was written | the key |
/// |---|---|---|
/// | 2xx, 3xx | committed, together with the record | completed |
/// | any with [`Verdict::Keep`] or [`Verdict::KeepFor`] | committed, together with the record | completed |
/// | any with [`Verdict::Release`] | rolled back | released: a retry runs again |
/// | any with [`Verdict::Unknown`] | rolled back | completed: a retry gets 409 `outcome-unknown` |
/// | another one that is kept, such as a 404 or a 409 | rolled back, as by an early return with `pool.begin()` | completed: a retry gets the answer |
/// | one that is not kept (408, 425, 429, 5xx), a panic | rolled back | released: a retry runs again |
///
/// A success, or another answer that a verdict keeps, is never sent if the database refuses the commit: where a statement failed and its error was swallowed, or
/// a constraint fails at the commit, the client gets `rolled-back`, and where the commit's answer is lost `not-committed`.
/// `docs/http.md` shows both. An attempt whose claim was taken over meanwhile rolls back, and its client is told by
/// 409 `in-flight` to come back for the other one's answer.
///
/// The handler cannot commit: it gets a connection and not the transaction. SQL that commits or rolls back, as text,
/// breaks the promise: the client gets `not-committed`, and its retries `response-not-stored`, so that nothing is done twice.
/// An effect outside of the database is not part of the transaction either. Savepoints are fine: `connection.begin()`. The answer
/// has to be there at once: one that is streamed, and a transaction that outlives its handler, are rolled back and answered
/// with a 500, and the log says so.
///
/// Take durable [`Steps`](crate::Steps) before [`begin`](Self::begin): beside an open transaction, a `transact` is refused, and in SQLite
/// every step.
///
/// Where the request runs unprotected, without a key that is not required or in an outage, the transaction is committed or
/// rolled back by the same rules, without a record; only a streamed answer is then let through, after the commit.
#[derive(Debug)]
pub struct Transaction<
    #[cfg(feature = "postgres")] D: TransactionDatabase = sqlx::Postgres,
    #[cfg(not(feature = "postgres"))] D: TransactionDatabase,
> {
    slot: Slot,
    begun: Option<Begun>,
    database: PhantomData<fn() -> D>,
}

impl<D: TransactionDatabase> Transaction<D> {
    /// The connection of the transaction, which begins with the first call.
    ///
    /// # Errors
    ///
    /// When the pool has no connection or the database cannot be reached: answer with a 503, and the retry runs again.
    /// [`sqlx::Error::Configuration`] where the handler lacks `#[idempotent]`, because nothing would commit it, and while a
    /// [`Steps::transact`](crate::Steps::transact) of the handler runs.
    pub async fn begin(&mut self) -> sqlx::Result<&mut D::Connection> {
        let begun = match self.begun.take() {
            Some(begun) => begun,
            None => self.slot.sql().begin().await?,
        };
        let connection = self.begun.insert(begun).connection_mut::<D>();
        connection.ok_or_else(|| sqlx::Error::Configuration("a handler has one Transaction, in one database".into()))
    }
}

impl<D: TransactionDatabase> Drop for Transaction<D> {
    fn drop(&mut self) {
        if let Some(begun) = self.begun.take() {
            self.slot.sql().put(begun);
        }
    }
}

impl<S: Sync, D: TransactionDatabase> FromRequestParts<S> for Transaction<D> {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let slot = Slot::of(&mut parts.extensions);
        slot.sql().want::<D>();
        Ok(Self {
            slot,
            begun: None,
            database: PhantomData,
        })
    }
}
