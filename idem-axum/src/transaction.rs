//! The handler's effects and its outcome in one transaction of Postgres: all of it, or nothing.
//!
//! Owns the extractor, and the way of a transaction from the handler to the commit:
//!
//! 1. [`Transaction`] is extracted before the claim, as every argument is, and costs nothing then: a replay opens no
//!    transaction. The handler begins it, by [`Transaction::begin`], on a connection of the application's pool.
//! 2. When the handler's future has ended, and its arguments with it, the transaction lies in the request's [`Slot`],
//!    where the run finds it. It is rolled back there if nobody takes it: the handler panicked, say.
//! 3. A 2xx or 3xx that is kept is written into the record through the same transaction, fenced by the claim's token, and
//!    the one commit makes both last. That is the engine's [`HandlerResult::Joint`]; the engine knows neither sqlx nor what
//!    is in the transaction. Any other answer rolls back, as an early return does everywhere: one that is kept (a 404, say)
//!    is then recorded by itself, and one that is not (5xx, 408, 425, 429) releases the claim.
//!
//! While the handler runs, its claim is renewed over other connections and in another table, and the transaction holds no
//! lock on the record: only its last statement does, for the length of the commit.
//!
//! | what happens | effects | record | client |
//! |---|---|---|---|
//! | the process dies before the commit | none | lapses; the next attempt runs | nothing |
//! | it dies after the commit | all | completed | nothing; its retry is a replay |
//! | another attempt has taken the claim over | none | the other's | 409 `in-flight` |
//! | the handler answers with a kept 4xx | none | completed | that answer |
//! | the handler answers with 500, or panics | none | released | that answer |
//! | the answer is a 2xx or 3xx, and the server refuses | none | released | 500 or 503 `rolled-back` |
//! | the commit is sent, and its answer is lost | all or none | completed or released | 503 `not-committed`; its retry finds out |
//!
//! In the last case, the engine releases the claim: a `DELETE` that waits for the row until the transaction that wrote
//! it has ended, and then finds a claim to release or a completion to leave alone. So nothing is guessed.
//! [`idem_postgres::EndKind`] has the sorting of what the server says.

use std::any::Any;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::Extensions;
use axum::http::request::Parts;
use axum::response::Response;
use futures_util::FutureExt as _;
use idem_core::{Backend, Claim, Commit, CommitOutcome, Completion, Fenced, HandlerResult, RecordKey, RecordOutcome};
use idem_postgres::sqlx::{self, PgConnection};
use idem_postgres::{EndError, EndKind, JointTransaction, PostgresBackend};

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
/// | answer | what was written | the key |
/// |---|---|---|
/// | 2xx, 3xx | committed, together with the record | completed |
/// | another one that is kept, such as a 404 or a 409 | rolled back, as by an early return with `pool.begin()` | completed: a retry gets the answer |
/// | one that is not kept (408, 425, 429, 5xx), a panic | rolled back | released: a retry runs again |
///
/// A success that the database refuses is never answered as one: where a statement failed and its error was swallowed, or
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
/// Where the request runs unprotected, without a key that is not required or in an outage, the transaction is committed or
/// rolled back by the same rules, without a record; only a streamed answer is then let through, after the commit.
#[derive(Debug)]
pub struct Transaction {
    slot: Slot,
    begun: Option<JointTransaction>,
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
        Ok(self.begun.insert(begun).connection())
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
    Ended(JointTransaction),
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
            idempotency.note_lack_of_transaction();
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

    async fn begin(&self) -> sqlx::Result<JointTransaction> {
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

    fn put(&self, begun: JointTransaction) {
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
    ) -> HandlerResult<Response> {
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
            HandlerResult::Whole {
                answer,
                outcome: RecordOutcome::Complete(completion),
            } if is_success(&answer) => {
                let len = match &completion {
                    Completion::Stored(payload) => payload.len(),
                    Completion::NotStored => 0,
                };
                let commit = Commit::new(len, move |sent| async move {
                    let asked = || sent.mark();
                    let committed = postgres
                        .complete_in(transaction, (&record, &claim), &completion, asked)
                        .await;
                    match committed {
                        Ok(Fenced::Applied) => CommitOutcome::Committed,
                        Ok(Fenced::Superseded) => CommitOutcome::Superseded,
                        Err(error) => refused_by_server(&error, Some(&record)),
                    }
                });
                HandlerResult::Joint { answer, commit }
            }
            HandlerResult::Streaming { .. } => {
                let _ = transaction.roll_back().await;
                tracing::error!(
                    key = %record.shown(),
                    "a handler with a Transaction answered with a stream, and was rolled back; collect the answer"
                );
                refused(self.settings().problem(IdempotencyProblem::NotConfigured))
            }
            undone => match (transaction.roll_back().await, undone) {
                // What the handler has committed by itself must not come twice.
                (Err(error), HandlerResult::Whole { answer, outcome }) => {
                    refused_by_server(&error, Some(&record));
                    let outcome = match outcome {
                        RecordOutcome::Release => RecordOutcome::Complete(Completion::NotStored),
                        kept @ RecordOutcome::Complete(_) => kept,
                    };
                    HandlerResult::Whole { answer, outcome }
                }
                (_, undone) => undone,
            },
        }
    }

    /// Runs a handler without a claim; what it did in a transaction is committed if its answer is a success that would be
    /// kept.
    pub(crate) async fn alone(
        self,
        handler: impl Future<Output = Response>,
        stored: StoredAnswers,
        deadline: Duration,
    ) -> Response {
        let response = handler.await;
        let transaction = match self.replace(State::Closed) {
            State::NotBegun | State::Closed => return response,
            State::Ended(transaction) => transaction,
            State::Lent => return self.outlived(),
        };
        let (head, body) = response.into_parts();
        let is_kept = answer::is_kept(&head, stored);
        let response = Response::from_parts(head, body);
        if !is_kept || !is_success(&response) {
            if let Err(error) = transaction.roll_back().await {
                refused_by_server(&error, None);
            }
            return response;
        }
        let settings = self.settings();
        let commit = Commit::new(0, |sent| async move {
            match transaction.commit(|| sent.mark()).await {
                Ok(()) => CommitOutcome::Committed,
                Err(error) => refused_by_server(&error, None),
            }
        });
        match commit.within(deadline).await {
            CommitOutcome::Committed => response,
            CommitOutcome::RolledBack { may_pass } => settings.problem(IdempotencyProblem::RolledBack { may_pass }),
            CommitOutcome::Superseded | CommitOutcome::Unknown | CommitOutcome::EndedByHandler => {
                settings.not_committed_unprotected()
            }
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

/// Whether the answer says that what it was asked for was done.
fn is_success(answer: &Response) -> bool {
    answer.status().is_success() || answer.status().is_redirection()
}

/// What is known where the server did not commit, with a line in the log that says why and what to do.
fn refused_by_server(error: &EndError, record: Option<&RecordKey>) -> CommitOutcome {
    let key = record.map(RecordKey::shown).map(tracing::field::display);
    let cause = error as &dyn Error;
    match error.kind() {
        EndKind::MayPass => {
            tracing::warn!(
                key,
                error = cause,
                "a Transaction was rolled back, and its client was told to try again"
            );
            CommitOutcome::RolledBack { may_pass: true }
        }
        EndKind::Unknown => {
            tracing::warn!(key, error = cause, "whether a Transaction was committed is not known");
            CommitOutcome::Unknown
        }
        EndKind::FailedBefore => {
            tracing::error!(
                key,
                error = cause,
                "a handler answered with success although a statement of its Transaction had failed, so all of it was rolled \
                 back; answer with an error where a statement fails, or put a statement that may fail into a savepoint: \
                 `connection.begin()`"
            );
            CommitOutcome::RolledBack { may_pass: false }
        }
        EndKind::EndedByHandler => {
            tracing::error!(
                key,
                error = cause,
                "a handler ended its Transaction itself, so its rows and its record cannot be one; leave COMMIT and ROLLBACK to \
                 the Transaction, and do not give up a `connection.begin()` half-way"
            );
            CommitOutcome::EndedByHandler
        }
        _ => {
            tracing::error!(
                key,
                error = cause,
                "the database refused the commit of a Transaction, and will refuse it again; check for this in the handler, \
                 and answer with an error"
            );
            CommitOutcome::RolledBack { may_pass: false }
        }
    }
}

fn refused(answer: Response) -> HandlerResult<Response> {
    let outcome = RecordOutcome::Release;
    HandlerResult::Whole { answer, outcome }
}
