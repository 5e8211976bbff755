//! The handler's effects and its outcome in one transaction of Postgres: all of it, or nothing.
//!
//! Owns the extractor, and the way of a transaction from the handler to the commit:
//!
//! 1. [`Transaction`] is extracted before the claim, as every argument is, and costs nothing then: a replay opens no
//!    transaction. The handler begins it, by [`Transaction::begin`], on a connection of the backend's own pool.
//! 2. When the handler's future has ended, and its arguments with it, the transaction lies in the request's [`Slot`],
//!    where the run finds it. It is rolled back there if nobody takes it: the handler panicked, say.
//! 3. An answer that is kept is written into the record through the same transaction, fenced by the claim's token, and
//!    the one commit makes both last. That is the engine's [`Finished::Joint`]; the engine knows neither sqlx nor what
//!    is in the transaction. An answer that is not kept (5xx, 408, 425, 429) rolls it back and releases the claim.
//!
//! While the handler runs, its claim is renewed over other connections, and the transaction holds no lock on the
//! record: only its last statement does, for the length of the commit.
//!
//! | what happens | effects | record | client |
//! |---|---|---|---|
//! | the process dies before the commit | none | lapses; the next attempt runs | nothing |
//! | it dies after the commit | all | completed | nothing; its retry is a replay |
//! | another attempt has taken the claim over | none | the other's | 409 `in-flight` |
//! | the commit fails, or nobody knows | all or none | completed or released | 503; its retry finds out |
//! | the handler answers with 500, or panics | none | released | that answer |
//!
//! In the fourth case, the engine releases the claim: a `DELETE` that waits for the row until the transaction that wrote
//! it has ended, and then finds a claim to release or a completion to leave alone. So nothing is guessed.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::extract::FromRequestParts;
use axum::http::Extensions;
use axum::http::request::Parts;
use axum::response::Response;
use futures_util::FutureExt as _;
use idem_core::{Backend, Claim, Finished, Outcome, RecordKey};
use idem_postgres::PostgresBackend;
use idem_postgres::sqlx::{self, PgConnection, Postgres};

use crate::Idempotency;
use crate::answer::{self, Rules};
use crate::policy::StoredAnswers;
use crate::problem::IdempotencyProblem;
use crate::settings::Settings;

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
/// Every answer that is kept commits, a 404 or a 422 as well: answer with what was done. One that is not kept (408, 425,
/// 429, 5xx) and a panic roll back. An attempt whose claim was taken over meanwhile rolls back, and its client is told by
/// 409 `in-flight` to come back for the other one's answer.
///
/// The handler cannot commit: it gets a connection and not the transaction. SQL that commits or rolls back, as text,
/// breaks the promise, and so does an effect outside of the database. Savepoints are fine: `connection.begin()`. The answer
/// has to be there at once: one that is streamed, and a transaction that outlives its handler, are rolled back and answered
/// with a 500, and the log says so.
///
/// Where the request runs unprotected, for want of a key that is not required, the transaction is committed or rolled
/// back by the same rules, without a record; only a streamed answer is then let through, after the commit.
#[derive(Debug)]
pub struct Transaction {
    slot: Slot,
    begun: Option<sqlx::Transaction<'static, Postgres>>,
}

impl Transaction {
    /// The connection of the transaction, which begins with the first call.
    ///
    /// # Errors
    ///
    /// When the pool has no connection or the database cannot be reached: answer with a 503, and the retry runs again.
    /// [`sqlx::Error::Configuration`] where the handler lacks `#[idempotent]`, for nobody would commit.
    pub async fn begin(&mut self) -> sqlx::Result<&mut PgConnection> {
        let begun = match self.begun.take() {
            Some(begun) => begun,
            None => self.slot.begin().await?,
        };
        Ok(self.begun.insert(begun))
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(begun) = self.begun.take() {
            self.slot.put(begun);
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Transaction {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let slot = Slot::of(&mut parts.extensions);
        slot.0.is_wanted.store(true, Ordering::Relaxed);
        Ok(Self { slot, begun: None })
    }
}

/// The backend, if it is one whose records can be written in a transaction.
pub(crate) fn postgres(backend: &impl Backend) -> Option<PostgresBackend> {
    (backend as &dyn Any).downcast_ref().cloned()
}

/// Where the transaction of a request is while nobody works in it.
#[derive(Clone)]
pub(crate) struct Slot(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// An argument has it.
    is_wanted: AtomicBool,
    /// Who will commit: the handler's own engine, whether from the layer or from an argument.
    committer: OnceLock<Committer>,
    state: Mutex<State>,
}

struct Committer {
    postgres: Option<PostgresBackend>,
    settings: Arc<Settings>,
}

#[derive(Default)]
enum State {
    #[default]
    NotBegun,
    /// The handler has it.
    Lent,
    Ended(sqlx::Transaction<'static, Postgres>),
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

    /// Names who will commit, before the handler runs; or answers in its place where nobody can.
    pub(crate) fn guard(&self, idempotency: &Idempotency) -> Option<Response> {
        let postgres = idempotency.postgres().cloned();
        if postgres.is_none() && self.0.is_wanted.load(Ordering::Relaxed) {
            tracing::error!(
                "a handler takes a Transaction, but its records are not in Postgres; give it an `idem_axum::Idempotency` \
                 over a `PostgresBackend`"
            );
            return Some(idempotency.settings().problem(IdempotencyProblem::NotConfigured));
        }
        let settings = idempotency.settings().clone();
        let _ = self.0.committer.set(Committer { postgres, settings });
        None
    }

    async fn begin(&self) -> sqlx::Result<sqlx::Transaction<'static, Postgres>> {
        let committer = self.0.committer.get();
        let Some(postgres) = committer.and_then(|committer| committer.postgres.as_ref()) else {
            let advice = "nobody would commit: the handler of a Transaction needs #[idempotent]";
            return Err(sqlx::Error::Configuration(advice.into()));
        };
        let begun = postgres.begin().await?;
        match self.replace(State::Lent) {
            State::NotBegun => Ok(begun),
            state => {
                self.replace(state);
                Err(sqlx::Error::Configuration("a handler has one Transaction".into()))
            }
        }
    }

    fn put(&self, begun: sqlx::Transaction<'static, Postgres>) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Lent) {
            *state = State::Ended(begun);
        }
    }

    fn replace(&self, state: State) -> State {
        std::mem::replace(&mut *self.0.state.lock().unwrap_or_else(PoisonError::into_inner), state)
    }

    /// Runs the handler of a claim; what it did in a transaction is committed with its outcome.
    pub(crate) async fn join(
        self,
        handler: impl Future<Output = Response>,
        rules: Rules,
        record: RecordKey,
        claim: Claim,
    ) -> Finished<Response> {
        let finished = handler.map(|response| answer::finish(response, &rules)).await;
        let transaction = match self.replace(State::Closed) {
            State::NotBegun | State::Closed => return finished,
            State::Ended(transaction) => transaction,
            State::Lent => return refused(self.outlived()),
        };
        let Some(postgres) = self.0.committer.get().and_then(|committer| committer.postgres.clone()) else {
            return finished;
        };
        match finished {
            Finished::Whole {
                answer,
                outcome: Outcome::Complete(completion),
            } => {
                let commit = async move { postgres.complete_in(transaction, &record, &claim, &completion).await };
                let commit = commit.boxed();
                Finished::Joint { answer, commit }
            }
            Finished::Streaming { .. } => {
                tracing::error!(
                    key = %record.shown(),
                    "a handler with a Transaction answered with a stream, and was rolled back; collect the answer"
                );
                refused(self.settings().problem(IdempotencyProblem::NotConfigured))
            }
            // Dropped, it is rolled back.
            released => released,
        }
    }

    /// Runs a handler without a claim; what it did in a transaction is committed if its answer would be kept.
    pub(crate) async fn alone(self, handler: impl Future<Output = Response>, stored: StoredAnswers) -> Response {
        let response = handler.await;
        match self.replace(State::Closed) {
            State::Ended(transaction) if stored.include(response.status()) => match transaction.commit().await {
                Ok(()) => response,
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "an unprotected transaction failed"
                    );
                    self.settings().not_committed()
                }
            },
            State::Lent => self.outlived(),
            _ => response,
        }
    }

    fn settings(&self) -> Arc<Settings> {
        let committer = self.0.committer.get();
        committer
            .map(|committer| committer.settings.clone())
            .unwrap_or_default()
    }

    /// The transaction is still in somebody's hands, so that it can be neither committed nor waited for.
    fn outlived(&self) -> Response {
        tracing::error!("a Transaction outlived its handler, and is rolled back; end what uses it before answering");
        self.settings().problem(IdempotencyProblem::NotConfigured)
    }
}

fn refused(answer: Response) -> Finished<Response> {
    let outcome = Outcome::Release;
    Finished::Whole { answer, outcome }
}
