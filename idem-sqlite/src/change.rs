//! One change of a record: what was asked, its statements, and the answer.
//!
//! Owns the meaning of the statements' rows for the contract. Does not own the transaction around them.

use std::time::Duration;

use bytes::Bytes;
use idem_core::inspect::Settled;
use idem_core::{Acquisition, BackendError, BackendErrorKind, Claim, Completion, Fenced, Record, RecordKey, Token};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row as _, SqlStr, SqliteConnection};
use tokio::sync::oneshot;

use crate::clock::{Clock, Moment};
use crate::inspect::{Settling, settle};
use crate::record::{Parameters, Row};
use crate::table::{Statements, text};

/// Somebody who waits for the result of a change, and the result once there is one.
pub(crate) struct Answer<T> {
    to: oneshot::Sender<Result<T, BackendError>>,
    found: Option<Result<T, BackendError>>,
}

/// What is waited for.
pub(crate) type Answered<T> = oneshot::Receiver<Result<T, BackendError>>;

impl<T> Answer<T> {
    pub(crate) fn new() -> (Self, Answered<T>) {
        let (to, answered) = oneshot::channel();
        (Self { to, found: None }, answered)
    }

    fn send(self) {
        if let Some(found) = self.found {
            // Whoever has gone away finds out by its next call.
            let _ = self.to.send(found);
        }
    }

    fn fail(self, error: &BackendError) {
        let _ = self.to.send(Err(error.clone()));
    }
}

pub(crate) enum Change {
    /// Writes a claim where there is none, or also over the claim `lapsed`, which has steps or not.
    Acquire {
        key: RecordKey,
        claim: Claim,
        lapsed: Option<(Token, bool)>,
        answer: Answer<Acquisition>,
    },
    /// What only the owner of a claim may do.
    Own {
        key: RecordKey,
        claim: Claim,
        step: OwnStep,
        answer: Answer<Fenced>,
    },
    /// What an operator may do.
    Settle {
        asked: Box<Settling>,
        answer: Answer<Settled>,
    },
    Check {
        answer: Answer<()>,
    },
    /// Writes what is there already.
    Touch {
        answer: Answer<()>,
    },
    Sweep {
        limit: u32,
        answer: Answer<u64>,
    },
}

pub(crate) enum OwnStep {
    Renew,
    Complete(Completion, Duration),
    Release,
    /// The name and the bytes of a durable step.
    Record(String, Bytes),
    Park,
}

impl Change {
    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_given_up(&self) -> bool {
        match self {
            Self::Acquire { answer, .. } => answer.to.is_closed(),
            Self::Own { answer, .. } => answer.to.is_closed(),
            Self::Settle { answer, .. } => answer.to.is_closed(),
            Self::Check { answer } | Self::Touch { answer } => answer.to.is_closed(),
            Self::Sweep { answer, .. } => answer.to.is_closed(),
        }
    }

    /// Sends the result, after the commit.
    pub(crate) fn answer(self) {
        match self {
            Self::Acquire { answer, .. } => answer.send(),
            Self::Own { answer, .. } => answer.send(),
            Self::Settle { answer, .. } => answer.send(),
            Self::Check { answer } | Self::Touch { answer } => answer.send(),
            Self::Sweep { answer, .. } => answer.send(),
        }
    }

    pub(crate) fn fail(self, error: &BackendError) {
        match self {
            Self::Acquire { answer, .. } => answer.fail(error),
            Self::Own { answer, .. } => answer.fail(error),
            Self::Settle { answer, .. } => answer.fail(error),
            Self::Check { answer } | Self::Touch { answer } => answer.fail(error),
            Self::Sweep { answer, .. } => answer.fail(error),
        }
    }

    /// The key whose claim this change has ended.
    pub(crate) fn ended(&self) -> Option<&RecordKey> {
        match self {
            Self::Own {
                key,
                step: OwnStep::Complete(..) | OwnStep::Release | OwnStep::Park,
                answer,
                ..
            } if matches!(answer.found, Some(Ok(Fenced::Applied))) => Some(key),
            Self::Settle { asked, answer } if matches!(answer.found, Some(Ok(Settled::Applied))) => Some(&asked.key),
            _ => None,
        }
    }

    /// Makes the change in the transaction of `connection`.
    pub(crate) async fn apply(
        &mut self,
        connection: &mut SqliteConnection,
        statements: &Statements,
        at: (&Clock, Moment),
    ) -> sqlx::Result<()> {
        match self {
            Self::Acquire {
                key,
                claim,
                lapsed,
                answer,
            } => answer.found = Some(acquire(connection, statements, (key, claim, *lapsed), at).await?),
            Self::Own {
                key,
                claim,
                step,
                answer,
            } => answer.found = Some(own(connection, statements, (key, claim, step), at).await?),
            Self::Settle { asked, answer } => answer.found = Some(Ok(settle(connection, statements, asked, at).await?)),
            Self::Check { answer } => {
                fetch(connection, &statements.check, SqliteArguments::default()).await?;
                answer.found = Some(Ok(()));
            }
            Self::Touch { answer } => answer.found = Some(Ok(touch(connection).await?)),
            Self::Sweep { limit, answer } => answer.found = Some(Ok(sweep(connection, statements, *limit, at).await?)),
        }
        Ok(())
    }
}

/// Writes the number that belongs to the application as it is, so that the commit writes a page of the file.
async fn touch(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    let version = sqlx::query("PRAGMA user_version").fetch_one(&mut *connection).await?;
    let version: i64 = version.try_get(0)?;
    let write = text(format!("PRAGMA user_version = {version}"));
    sqlx::query(write).execute(connection).await.map(drop)
}

async fn acquire(
    connection: &mut SqliteConnection,
    statements: &Statements,
    (key, claim, lapsed): (&RecordKey, &Claim, Option<(Token, bool)>),
    at: (&Clock, Moment),
) -> sqlx::Result<Result<Acquisition, BackendError>> {
    let parameters = Parameters::claim(key, claim, at).map_err(sqlx::Error::Encode)?;
    let (statement, parameters) = match lapsed {
        Some(lapsed) => (
            &statements.take_over,
            parameters.over(lapsed).map_err(sqlx::Error::Encode)?,
        ),
        None => (&statements.claim, parameters),
    };
    if fetch(connection, statement, parameters.into_arguments())
        .await?
        .is_some()
    {
        return Ok(Ok(Acquisition::Acquired));
    }
    let found = fetch(connection, &statements.read, of_key(key)?).await?;
    // The claim was refused because of a record, and nobody else writes meanwhile.
    let row = found.as_ref().map(Row::of).ok_or(sqlx::Error::RowNotFound)??;
    Ok(row.decode(at).and_then(|found| {
        let found = found.ok_or_else(|| {
            let context = "a record that expired was not replaced";
            BackendError::new(BackendErrorKind::Refused, context).not_written()
        })?;
        Ok(existing(found.record, found.token, claim))
    }))
}

/// What a claim finds in place of an absent record.
pub(crate) fn existing(record: Record, token: Token, claim: &Claim) -> Acquisition {
    match record {
        Record::Claimed { .. } if token == claim.token => Acquisition::Acquired,
        record => Acquisition::Existing(record),
    }
}

async fn own(
    connection: &mut SqliteConnection,
    statements: &Statements,
    (key, claim, step): (&RecordKey, &Claim, &OwnStep),
    at: (&Clock, Moment),
) -> sqlx::Result<Result<Fenced, BackendError>> {
    let own = || Parameters::own(key, claim.token);
    let (statement, parameters) = match step {
        OwnStep::Renew => {
            let kept = claim.lease.saturating_add(claim.ttl);
            let renewed = own().and_then(|own| own.until(Some(claim.lease), kept, at));
            (&statements.renew, renewed)
        }
        OwnStep::Complete(completion, ttl) => {
            if complete(connection, statements, (key, claim), (completion, *ttl), at).await? == Fenced::Applied {
                return Ok(Ok(Fenced::Applied));
            }
            // It may be a repetition.
            (&statements.is_completed, own().and_then(|own| own.at(at)))
        }
        OwnStep::Release => (&statements.release, own().and_then(|own| own.at(at))),
        OwnStep::Record(name, step) => {
            return record_step(connection, statements, (key, claim), (name, step), at).await;
        }
        OwnStep::Park => return Ok(Ok(park(connection, statements, (key, claim), at).await?)),
    };
    let arguments = parameters.map_err(sqlx::Error::Encode)?.into_arguments();
    let row = fetch(connection, statement, arguments).await?;
    Ok(Ok(row.map_or(Fenced::Superseded, |_row| Fenced::Applied)))
}

/// Records a durable step in the transaction of `connection`.
pub(crate) async fn record_step(
    connection: &mut SqliteConnection,
    statements: &Statements,
    (key, claim): (&RecordKey, &Claim),
    (name, step): (&str, &Bytes),
    at: (&Clock, Moment),
) -> sqlx::Result<Result<Fenced, BackendError>> {
    let kept = claim.lease.saturating_add(claim.ttl);
    let own = Parameters::own(key, claim.token);
    let held = own.and_then(|own| {
        own.until(Some(claim.lease), kept, at)?
            .over((claim.token, claim.has_steps))
    });
    let held = held.map_err(sqlx::Error::Encode)?.into_arguments();
    if fetch(connection, &statements.hold_for_step, held).await?.is_none() {
        return find_lost_steps(connection, statements, (key, claim), at).await;
    }
    let written = Parameters::step(key, name, step).map_err(sqlx::Error::Encode)?;
    sqlx::query_with(statements.write_step.clone(), written.into_arguments())
        .execute(connection)
        .await?;
    Ok(Ok(Fenced::Applied))
}

/// Why a step was not written: its claim is not in place, or the steps before it are gone.
async fn find_lost_steps(
    connection: &mut SqliteConnection,
    statements: &Statements,
    (key, claim): (&RecordKey, &Claim),
    at: (&Clock, Moment),
) -> sqlx::Result<Result<Fenced, BackendError>> {
    let own = Parameters::own(key, claim.token).and_then(|own| own.at(at));
    let own = own.map_err(sqlx::Error::Encode)?;
    let row = fetch(connection, &statements.read_steps, own.into_arguments()).await?;
    Ok(if row.is_some() {
        let context = "the steps of the record are gone";
        Err(BackendError::new(BackendErrorKind::Unreadable, context).not_written())
    } else {
        Ok(Fenced::Superseded)
    })
}

/// Parks a claim with steps, and releases one without.
async fn park(
    connection: &mut SqliteConnection,
    statements: &Statements,
    (key, claim): (&RecordKey, &Claim),
    at: (&Clock, Moment),
) -> sqlx::Result<Fenced> {
    let own = || Parameters::own(key, claim.token);
    for (statement, parameters) in [
        (&statements.park, own().and_then(|own| own.until(None, claim.ttl, at))),
        (&statements.is_parked, own().and_then(|own| own.at(at))),
        (&statements.release, own().and_then(|own| own.at(at))),
    ] {
        let arguments = parameters.map_err(sqlx::Error::Encode)?.into_arguments();
        if fetch(connection, statement, arguments).await?.is_some() {
            return Ok(Fenced::Applied);
        }
    }
    Ok(Fenced::Superseded)
}

/// Completes a claim in the transaction of `connection`. Repeated, it is superseded.
pub(crate) async fn complete(
    connection: &mut SqliteConnection,
    statements: &Statements,
    (key, claim): (&RecordKey, &Claim),
    (completion, ttl): (&Completion, Duration),
    at: (&Clock, Moment),
) -> sqlx::Result<Fenced> {
    let own = Parameters::own(key, claim.token);
    let completed = own.and_then(|own| own.completion(completion)?.until(None, ttl, at));
    let arguments = completed.map_err(sqlx::Error::Encode)?.into_arguments();
    let row = fetch(connection, &statements.complete, arguments).await?;
    Ok(row.map_or(Fenced::Superseded, |_row| Fenced::Applied))
}

async fn sweep(
    connection: &mut SqliteConnection,
    statements: &Statements,
    limit: u32,
    at: (&Clock, Moment),
) -> sqlx::Result<u64> {
    let parameters = Parameters::limit(limit).and_then(|limit| limit.at(at));
    let arguments = parameters.map_err(sqlx::Error::Encode)?.into_arguments();
    let swept = sqlx::query_with(statements.sweep.clone(), arguments)
        .execute(connection)
        .await?;
    Ok(swept.rows_affected())
}

pub(crate) fn of_key(key: &RecordKey) -> sqlx::Result<SqliteArguments> {
    let parameters = Parameters::of(key).map_err(sqlx::Error::Encode)?;
    Ok(parameters.into_arguments())
}

pub(crate) async fn fetch(
    connection: &mut SqliteConnection,
    statement: &SqlStr,
    arguments: SqliteArguments,
) -> sqlx::Result<Option<SqliteRow>> {
    sqlx::query_with(statement.clone(), arguments)
        .fetch_optional(connection)
        .await
}
