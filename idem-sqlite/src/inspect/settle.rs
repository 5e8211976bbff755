//! A settlement in the writer's transaction.
//!
//! Owns which record may be settled, and what is written then. Nobody else writes meanwhile, so that what was read still holds when it
//! is written. Does not own the transaction: that is the writer's.

use std::time::{Duration, SystemTime};

use idem_core::columns::Left;
use idem_core::inspect::{LiveClaim, Phase, RecordVersion, Settled, Settlement, StepChange, StepsDigest};
use idem_core::{RecordKey, Token};
use sqlx::error::BoxDynError;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqlStr, SqliteConnection};

use crate::change::{fetch, of_key};
use crate::clock::{Clock, Moment};
use crate::inspect::version_of_unreadable;
use crate::record::{Parameters, Row};
use crate::table::Statements;

/// A change that an operator asks for.
pub(crate) struct Settling {
    pub(crate) key: RecordKey,
    pub(crate) version: RecordVersion,
    pub(crate) settlement: Settlement,
    pub(crate) live: LiveClaim,
}

/// Settles a record in the transaction of `connection`, if it is still at the version that the operator has seen.
pub(crate) async fn settle(
    connection: &mut SqliteConnection,
    statements: &Statements,
    asked: &Settling,
    at: (&Clock, Moment),
) -> sqlx::Result<Settled> {
    if asked.version.phase == Phase::Unreadable {
        return forget_unreadable(connection, statements, asked, at).await;
    }
    let row = fetch(connection, &statements.operator.look, of_key(&asked.key)?).await?;
    // No operator has seen the version of a row that cannot be read.
    let row = row.and_then(|row| Row::of(&row).ok());
    let found = row.and_then(|row| Some((row.columns().version()?, row.left(at)?, row.columns().ttl_ms)));
    let Some((mut version, left, ttl_ms)) = found else {
        return Ok(Settled::Changed);
    };
    if version.phase != Phase::Completed {
        version.steps = steps(connection, statements, &asked.key).await?;
    }
    if let Some(settled) = unchanged(asked, version, left) {
        return Ok(settled);
    }
    let mut record = Found {
        connection,
        statements,
        key: &asked.key,
        at,
    };
    match &asked.settlement {
        Settlement::Rerun { token, began_at, step } if version.phase != Phase::Completed => {
            let ttl = Duration::from_millis(u64::try_from(ttl_ms).unwrap_or(0));
            record.rerun((*token, *began_at), step.as_ref(), ttl).await?;
        }
        Settlement::Forget | Settlement::Rerun { .. } => record.forget().await?,
        Settlement::Complete { token, completion, ttl } => {
            let own = Parameters::own(&asked.key, *token);
            let completed = own.and_then(|own| own.completion(completion)?.until(None, *ttl, at));
            record.write(&statements.operator.complete, completed).await?;
        }
    }
    Ok(Settled::Applied)
}

/// Forgets a record that cannot be read, if it is still as it was seen.
async fn forget_unreadable(
    connection: &mut SqliteConnection,
    statements: &Statements,
    asked: &Settling,
    at: (&Clock, Moment),
) -> sqlx::Result<Settled> {
    let row = fetch(connection, &statements.operator.whole, of_key(&asked.key)?).await?;
    let there = row.as_ref().map(version_of_unreadable).transpose()?;
    if there != Some(asked.version) {
        return Ok(Settled::Changed);
    }
    let mut record = Found {
        connection,
        statements,
        key: &asked.key,
        at,
    };
    record.forget().await?;
    Ok(Settled::Applied)
}

/// What the steps of the record are fenced by.
async fn steps(
    connection: &mut SqliteConnection,
    statements: &Statements,
    key: &RecordKey,
) -> sqlx::Result<StepsDigest> {
    let rows = sqlx::query_with(statements.operator.steps.clone(), of_key(key)?);
    let rows = rows.fetch_all(&mut *connection).await?;
    let step = |row: &SqliteRow| Ok((row.try_get(0)?, row.try_get(1)?));
    let steps: Vec<(String, Vec<u8>)> = rows.iter().map(step).collect::<sqlx::Result<_>>()?;
    Ok(StepsDigest::of(
        steps.iter().map(|(name, step)| (name.as_str(), &step[..])),
    ))
}

/// The result if nothing is to be written.
fn unchanged(asked: &Settling, found: RecordVersion, left: Left) -> Option<Settled> {
    if asked
        .settlement
        .leaves()
        .is_some_and(|left| left.is_of_same_claim(&found))
    {
        // It was written before.
        return Some(Settled::Applied);
    }
    if found != asked.version {
        return Some(Settled::Changed);
    }
    let is_refused = asked.live == LiveClaim::Refuse && !left.lease.is_zero();
    is_refused.then_some(Settled::Live(left.lease))
}

/// A record that is at the version that was asked for.
struct Found<'a> {
    connection: &'a mut SqliteConnection,
    statements: &'a Statements,
    key: &'a RecordKey,
    at: (&'a Clock, Moment),
}

impl Found<'_> {
    async fn forget(&mut self) -> sqlx::Result<()> {
        self.write(&self.statements.operator.forget, Parameters::of(self.key))
            .await
    }

    /// Parks the record if it has steps after the change, and removes it otherwise.
    async fn rerun(
        &mut self,
        (token, began_at): (Token, SystemTime),
        step: Option<&StepChange>,
        ttl: Duration,
    ) -> sqlx::Result<()> {
        let (statements, key) = (self.statements, self.key);
        match step {
            Some(StepChange::Done { name, step }) => {
                let written = Parameters::step(key, name, step);
                self.write(&statements.write_step, written).await?;
            }
            Some(StepChange::NotDone { name }) => {
                let dropped = Parameters::of(key).and_then(|key| key.name(name));
                self.write(&statements.operator.drop_step, dropped).await?;
            }
            None => {}
        }
        let step = fetch(self.connection, &statements.operator.has_steps, of_key(key)?).await?;
        if step.is_none() {
            return self.forget().await;
        }
        let parked = Parameters::own(key, token).and_then(|own| own.began(began_at)?.until(None, ttl, self.at));
        self.write(&statements.operator.rerun, parked).await
    }

    async fn write(&mut self, statement: &SqlStr, parameters: Result<Parameters, BoxDynError>) -> sqlx::Result<()> {
        let arguments = parameters.map_err(sqlx::Error::Encode)?.into_arguments();
        let written = sqlx::query_with(statement.clone(), arguments)
            .execute(&mut *self.connection)
            .await;
        written.map(drop)
    }
}
