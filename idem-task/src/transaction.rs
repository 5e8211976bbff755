//! A task's effects and its result in one transaction of Postgres or SQLite: all of it, or nothing.
//!
//! Owns which results commit what a task has written. Does not own how a transaction is handed over and committed: [`idem_sql`].
//!
//! | the task | its rows | the record |
//! |---|---|---|
//! | returns `Ok` | committed, together with the record | completed |
//! | returns an `Err` that is final | rolled back | completed with the error's verdict |
//! | returns another `Err`, or panics | rolled back | released |
//! | returns `Ok`, and the database refuses the commit | rolled back | released |
//! | returns `Ok`, and the answer to the commit is lost | all or none | completed or released |
//! | returns `Ok` after another attempt has taken the task over | rolled back | the other attempt's |

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use idem_core::{CommitOutcome, Completion, HandlerResult, RecordKey, RecordOutcome, StepError, StepErrorKind};
use idem_sql::{
    Begun, Kind, Left, TransactError, TransactionDatabase, commit_alone, commit_with_record, roll_back,
    roll_back_unrecorded, sqlx,
};

use crate::execution::Execution;
use crate::refused::{Refused, RefusedKind, TaskError};

/// A transaction of a task, in the database of the records: what is written over it and the record of the task are committed
/// together, once the task has returned `Ok`. [`Execution::transaction`] begins it.
///
/// It is a connection: `&mut *transaction` executes statements, and `transaction.begin()` of `sqlx::Connection` makes a savepoint. It
/// cannot be committed. Dropping it ends nothing: the task's result does. SQL that commits or rolls back, as text, breaks the promise:
/// the task is [`RefusedKind::NotCommitted`], and later deliveries [`RefusedKind::OutcomeUnknown`], so that nothing is done twice, unless it
/// panics after it has committed. In SQLite, a transaction that outlives its task keeps all other writers out until it is dropped.
#[derive(Debug)]
pub struct Transaction<
    #[cfg(feature = "postgres")] D: TransactionDatabase = sqlx::Postgres,
    #[cfg(not(feature = "postgres"))] D: TransactionDatabase,
> {
    execution: Execution,
    begun: Option<Begun>,
    database: PhantomData<fn() -> D>,
}

impl Execution {
    /// Begins the transaction of this task, on a connection of the pool that the records are in.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use idem_task::sqlx::{self, Postgres};
    /// use idem_task::{Engine, Refused, TaskExt as _};
    ///
    /// # type Failed = Box<dyn std::error::Error + Send + Sync>;
    /// async fn charge(engine: &Engine, message: String, account: String) -> Result<i64, Failed> {
    ///     let task = engine.task("charge").global().key(&message).ttl(Duration::from_hours(24));
    ///     task.run(|execution| async move {
    ///         let mut transaction = execution.transaction::<Postgres>().await?;
    ///         let charge = "UPDATE accounts SET cents = cents - 100 WHERE name = $1 RETURNING cents";
    ///         let left = sqlx::query_scalar(charge).bind(account).fetch_one(&mut *transaction).await?;
    ///         Ok(left) // the row and the record are committed once it is returned
    ///     })
    ///     .await
    /// }
    /// ```
    ///
    /// | the task | its rows | the next delivery |
    /// |---|---|---|
    /// | returns `Ok` | committed, together with the record | gets the value |
    /// | returns an `Err` that is final | rolled back | gets [`RefusedKind::Failed`] |
    /// | returns another `Err`, or panics | rolled back | runs the task again |
    /// | returns `Ok`, and the commit fails: [`RefusedKind::RolledBack`] | rolled back | runs the task again |
    /// | returns `Ok`, and it is not known whether it was committed: [`RefusedKind::NotCommitted`] | all or none | gets the value, or runs the task |
    /// | returns `Ok`, and another attempt has taken it over: [`RefusedKind::InFlight`] | rolled back | gets the other attempt's value |
    ///
    /// Begin it after the slow work. In SQLite it holds up all other writers until the task has ended. Take durable
    /// [`steps`](Self::steps) before it: beside an open transaction, a `transact` is refused, and in SQLite every step.
    ///
    /// Where the task runs unprotected, the transaction is committed or rolled back by the same rules, without a record.
    ///
    /// # Errors
    ///
    /// - [`RefusedKind::TransactionUnavailable`] if the pool has no connection or the database cannot be reached.
    /// - [`RefusedKind::NotConfigured`] if the engine's records are not in the database `D`, if the task has begun a transaction
    ///   before, and while a [`transact`](crate::Steps::transact) of it runs.
    ///
    /// Both are delivered again: return them, and the task is released.
    pub async fn transaction<D: TransactionDatabase>(&self) -> Result<Transaction<D>, Refused> {
        let slot = self.slot();
        let wanted = Kind::of::<D>();
        if slot.backend().is_none_or(|backend| backend.kind() != wanted) {
            let wants = wanted.wants();
            tracing::error!("a task takes a {wants}, but its engine keeps them elsewhere");
            return Err(Refused::new(RefusedKind::NotConfigured).with_source(format!("the task takes a {wants}")));
        }
        let begun = slot.begin().await.map_err(|error| match error {
            sqlx::Error::Configuration(_) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a task cannot begin a transaction"
                );
                Refused::new(RefusedKind::NotConfigured).with_source(error)
            }
            error => Refused::new(RefusedKind::TransactionUnavailable).with_source(error),
        })?;
        Ok(Transaction {
            execution: self.clone(),
            begun: Some(begun),
            database: PhantomData,
        })
    }
}

impl<D: TransactionDatabase> Deref for Transaction<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        match self.begun.as_ref().and_then(Begun::connection::<D>) {
            Some(connection) => connection,
            None => unreachable!("it was begun in this database, and is given back when it is dropped"),
        }
    }
}

impl<D: TransactionDatabase> DerefMut for Transaction<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        match self.begun.as_mut().and_then(Begun::connection_mut::<D>) {
            Some(connection) => connection,
            None => unreachable!("it was begun in this database, and is given back when it is dropped"),
        }
    }
}

impl<D: TransactionDatabase> Drop for Transaction<D> {
    fn drop(&mut self) {
        if let Some(begun) = self.begun.take() {
            self.execution.slot().put(begun);
        }
    }
}

/// Rolls a transaction back whose task has panicked, although other code may hold the execution.
pub(crate) struct Closing(pub(crate) Execution);

impl Drop for Closing {
    fn drop(&mut self) {
        drop(self.0.slot().close());
    }
}

impl Execution {
    /// The end of a task that ran under a claim. Its `outcome` is that of its `answer` without a transaction.
    pub(crate) async fn end<T, E: TaskError>(
        &self,
        answer: Result<T, E>,
        outcome: RecordOutcome,
    ) -> HandlerResult<Result<T, E>> {
        let slot = self.slot();
        let Some((record, claim)) = self.claim_now() else {
            return HandlerResult::Whole { answer, outcome };
        };
        let transaction = match slot.close() {
            Left::Nothing => return HandlerResult::Whole { answer, outcome },
            Left::Transaction(transaction) => transaction,
            Left::InUse => {
                return HandlerResult::Whole {
                    answer: Err(outlived(Some(record)).into()),
                    outcome: RecordOutcome::Release,
                };
            }
        };
        match (slot.backend(), outcome) {
            (Some(backend), RecordOutcome::Complete { completion, keep_for }) if answer.is_ok() => {
                let outcome = (completion, keep_for.unwrap_or(claim.ttl));
                let commit = commit_with_record(backend.clone(), transaction, (record.clone(), claim), outcome);
                HandlerResult::Joint {
                    answer,
                    commit: commit.unknown_if_ended(),
                }
            }
            (_, outcome) => {
                let result = HandlerResult::Whole { answer, outcome };
                roll_back(transaction, record, result, Completion::Unknown).await
            }
        }
    }

    /// The end of a task that ran without a claim.
    pub(crate) async fn end_unprotected<T, E: TaskError>(&self, answer: Result<T, E>) -> Result<T, E> {
        let slot = self.slot();
        let transaction = match slot.close() {
            Left::Nothing => return answer,
            Left::Transaction(transaction) => transaction,
            Left::InUse => return Err(outlived(None).into()),
        };
        if answer.is_err() {
            roll_back_unrecorded(transaction).await;
            return answer;
        }
        let kind = match commit_alone(transaction).within(slot.deadline()).await {
            CommitOutcome::Committed => return answer,
            CommitOutcome::RolledBack { may_pass } => RefusedKind::RolledBack { may_pass },
            // Without a claim, no later delivery finds out.
            CommitOutcome::Superseded | CommitOutcome::Unknown | CommitOutcome::EndedByHandler => {
                RefusedKind::OutcomeUnknown
            }
        };
        Err(Refused::new(kind).into())
    }
}

/// The transaction is still in use after its task has ended, so that it can be neither committed nor waited for.
fn outlived(record: Option<&RecordKey>) -> Refused {
    let key = record.map(RecordKey::shown).map(tracing::field::display);
    tracing::error!(
        key,
        "a Transaction outlived its task, and is rolled back; end what uses it before the task returns"
    );
    Refused::new(RefusedKind::NotConfigured).with_source("the transaction outlived its task")
}

impl TransactError for Refused {
    fn of_unprotected(error: StepError) -> Self {
        match error.kind() {
            // There is no record by which a later delivery could find out.
            StepErrorKind::NotCommitted => Self::new(RefusedKind::OutcomeUnknown).with_source(error),
            _ => Self::from(error),
        }
    }
}
