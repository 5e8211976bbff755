//! A step whose effects are rows: they and the step's record are committed together.
//!
//! Owns the order: look the step up, begin a transaction, call the body, record and commit. Does not own what a database says about
//! a commit: the backends sort that.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::time::Duration;

use futures_util::future::BoxFuture;
use idem_core::steps::{LookedUp, PreparedStep, StepRecord};
use idem_core::{Commit, CommitOutcome, Fenced, StepError, StepErrorKind, Steps};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::database::{Begun, SqlBackend, TransactionConnection};
use crate::ending::{commit_alone, sort_refusal};
use crate::slot::TransactionSlot;

/// The body of a step that gets a connection: an async closure such as `async |connection: &mut PgConnection| …`.
pub trait StepBody<'c, C: 'c, T, E>: FnOnce(&'c mut C) -> Self::Future + Send {
    /// What the body returns.
    type Future: Future<Output = Result<T, E>> + Send;
}

impl<'c, C, T, E, B, F> StepBody<'c, C, T, E> for B
where
    C: 'c,
    B: FnOnce(&'c mut C) -> F + Send,
    F: Future<Output = Result<T, E>> + Send,
{
    type Future = F;
}

/// The error of a step in a transaction, as an integration has it.
pub trait TransactError: From<StepError> {
    /// That of a step without a claim, by which a retry would find out what was committed.
    #[must_use]
    fn of_unprotected(error: StepError) -> Self {
        Self::from(error)
    }
}

impl TransactError for StepError {}

/// A step in a transaction that is to be run: await it.
#[must_use = "a step runs when it is awaited"]
#[derive(Debug)]
pub struct StepTransaction<'a, C, B, W> {
    steps: &'a Steps,
    slot: &'a TransactionSlot,
    name: &'static str,
    body: B,
    input: Option<Result<[u8; 32], StepError>>,
    types: PhantomData<fn() -> (C, W)>,
}

impl<'a, C, B, W> StepTransaction<'a, C, B, W> {
    /// The step `name` of these steps, in a transaction of the run that has the `slot`.
    pub fn new(steps: &'a Steps, slot: &'a TransactionSlot, name: &'static str, body: B) -> Self {
        Self {
            steps,
            slot,
            name,
            body,
            input: None,
            types: PhantomData,
        }
    }

    /// Compares the step's input with that of earlier attempts, as [`StepRun::of`](idem_core::steps::StepRun::of) does.
    pub fn of(mut self, input: &(impl Serialize + ?Sized)) -> Self {
        self.input = Some(Steps::digest(self.name, input));
        self
    }
}

impl<'a, C, B, W, T, E> IntoFuture for StepTransaction<'a, C, B, W>
where
    C: TransactionConnection,
    B: AsyncFnOnce(&mut C) -> Result<T, E> + for<'c> StepBody<'c, C, T, E> + 'a,
    T: Serialize + DeserializeOwned + Send + 'a,
    W: TransactError,
    E: From<W> + Send + 'a,
{
    type Output = Result<T, E>;
    type IntoFuture = BoxFuture<'a, Result<T, E>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self {
            steps,
            slot,
            name,
            body,
            input,
            ..
        } = self;
        Box::pin(async move {
            let failed = |error: StepError| E::from(W::from(error));
            let input = input.transpose().map_err(failed)?;
            let transacting = slot.start_transact(name).map_err(failed)?;
            let looked_up = steps.look_up(name, input).await.map_err(failed)?;
            let prepared = match looked_up {
                LookedUp::Recorded(result) => return Ok(result),
                LookedUp::New(prepared) => Some(prepared),
                LookedUp::Unprotected => None,
            };
            let deadline = prepared
                .as_ref()
                .map_or_else(|| slot.deadline(), PreparedStep::deadline);
            let (backend, mut begun) = begin(slot, name, deadline).await.map_err(failed)?;
            let Some(connection) = C::of(&mut begun) else {
                tracing::error!(
                    step = name,
                    "a step wants a connection to another database than that of the records"
                );
                return Err(failed(error(StepErrorKind::NotConfigured, name)));
            };
            let result = match transacting.run(body(connection)).await {
                Ok(result) => result,
                Err(error) => {
                    roll_back(begun, prepared).await;
                    return Err(error);
                }
            };
            match prepared {
                Some(prepared) => {
                    commit_with_step(backend, begun, (&prepared, name), &result)
                        .await
                        .map_err(failed)?;
                }
                None => {
                    commit_unrecorded(begun, name, deadline)
                        .await
                        .map_err(|error| E::from(W::of_unprotected(error)))?;
                }
            }
            Ok(result)
        })
    }
}

fn error(kind: StepErrorKind, name: &str) -> StepError {
    StepError::new(kind, name)
}

/// Begins a transaction in the database of the records.
async fn begin(
    slot: &TransactionSlot,
    name: &'static str,
    deadline: Duration,
) -> Result<(SqlBackend, Begun), StepError> {
    let Some(backend) = slot.backend().cloned() else {
        tracing::error!(
            step = name,
            "a step wants a transaction, and its handler's records are in no SQL database; annotate the handler with #[idempotent], \
             and give it an `idem_axum::Idempotency` over a `PostgresBackend` or a `SqliteBackend`"
        );
        return Err(error(StepErrorKind::NotConfigured, name));
    };
    match timeout(deadline, backend.begin()).await {
        Ok(Ok(begun)) => Ok((backend, begun)),
        Ok(Err(cause)) => Err(error(StepErrorKind::Unavailable, name).with_source(cause)),
        Err(_elapsed) => {
            let cause = format!("no transaction has begun within {deadline:?}");
            Err(error(StepErrorKind::Unavailable, name).with_source(cause))
        }
    }
}

/// Rolls back what a body did that returned an error. If the body has committed it, no later attempt may run it again.
async fn roll_back(begun: Begun, prepared: Option<PreparedStep<'_>>) {
    let Err(refused) = begun.roll_back().await else {
        return;
    };
    let key = prepared.as_ref().map(PreparedStep::key);
    if sort_refusal(&refused, key) == CommitOutcome::EndedByHandler
        && let Some(prepared) = prepared
    {
        // The error of the body passes through. If this fails, the log says so.
        let _ = prepared.record_without_result().await;
    }
}

type Committing<'a> = BoxFuture<'a, Result<(), StepError>>;

/// Records the step in its transaction, and commits.
fn commit_with_step<'a, T: Serialize>(
    backend: SqlBackend,
    begun: Begun,
    (prepared, name): (&'a PreparedStep<'a>, &'static str),
    result: &T,
) -> Committing<'a> {
    let record = prepared.ended(result);
    let commit = commit_of(backend, begun, &record);
    Box::pin(async move {
        match commit.within(prepared.deadline()).await {
            CommitOutcome::Committed => {
                record.is_recorded();
                Ok(())
            }
            outcome => {
                if outcome == CommitOutcome::EndedByHandler {
                    prepared.record_without_result().await?;
                }
                Err(error(kind_of(outcome), name))
            }
        }
    })
}

fn commit_of(backend: SqlBackend, begun: Begun, record: &StepRecord<'_>) -> Commit {
    let (key, claim) = (record.key().clone(), record.claim().clone());
    let (name, bytes) = (record.name(), record.bytes().clone());
    Commit::new(bytes.len(), move |sent| async move {
        let recorded = begun
            .record_step(&backend, (&key, &claim), (name, &bytes), || sent.mark())
            .await;
        match recorded {
            Ok(Fenced::Applied) => CommitOutcome::Committed,
            Ok(Fenced::Superseded) => CommitOutcome::Superseded,
            Err(error) => sort_refusal(&error, Some(&key)),
        }
    })
}

/// Commits the transaction of a step in a handler that runs without a claim.
async fn commit_unrecorded(begun: Begun, name: &'static str, deadline: Duration) -> Result<(), StepError> {
    match commit_alone(begun).within(deadline).await {
        CommitOutcome::Committed => Ok(()),
        outcome => Err(error(kind_of(outcome), name)),
    }
}

/// The error of a step whose transaction was not committed with its record.
fn kind_of(outcome: CommitOutcome) -> StepErrorKind {
    match outcome {
        CommitOutcome::Superseded => StepErrorKind::Superseded,
        CommitOutcome::RolledBack { may_pass } => StepErrorKind::RolledBack { may_pass },
        CommitOutcome::Committed | CommitOutcome::Unknown | CommitOutcome::EndedByHandler => {
            StepErrorKind::NotCommitted
        }
    }
}
