//! Durable steps: rows beside the record.
//!
//! Owns the meaning of the rows of the statements about steps. Does not own their text: [`statements`](crate::statements).

use bytes::Bytes;
use idem_core::columns::State;
use idem_core::steps::{RecordedSteps, StepBackend};
use idem_core::{BackendError, BackendErrorKind, Claim, EndError, Fenced, RecordKey};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::error::backend_error;
use crate::protocol::{Call, Value};
use crate::record::{End, Id};
use crate::{JointTransaction, PostgresBackend};

impl PostgresBackend {
    /// Records a step of `claim` in `transaction` and commits, so that the transaction's writes and the step take effect together or
    /// not at all. The claim stays in place. If it was superseded, the transaction is rolled back.
    ///
    /// The transaction must be in the database that has the tables. `asked` is called just before the commit is sent; if the
    /// future is dropped before that, nothing is committed.
    ///
    /// # Errors
    ///
    /// [`EndError::kind`] tells what is known of the transaction.
    pub async fn record_step_in(
        &self,
        transaction: JointTransaction,
        (key, claim): (&RecordKey, &Claim),
        (name, step): (&str, &Bytes),
        asked: impl FnOnce(),
    ) -> Result<Fenced, EndError> {
        let end = End::new(key, claim, self.table.name.channel());
        transaction
            .record_step(&self.table, (end.owner(), known_state(claim)), (name, step), asked)
            .await
    }
}

/// The state of `claim` as its owner, or another request, knows it.
pub(crate) fn known_state(claim: &Claim) -> i16 {
    let state = if claim.has_steps {
        State::ClaimedWithSteps
    } else {
        State::Claimed
    };
    state.number()
}

impl StepBackend for PostgresBackend {
    async fn record_step(
        &self,
        key: &RecordKey,
        claim: &Claim,
        name: &str,
        step: &Bytes,
    ) -> Result<Fenced, BackendError> {
        const WHAT: &str = "recording a step";
        let (id, token) = (Id::of(key), claim.token.to_bytes());
        let values = [
            Value::Bytes(id.as_bytes()),
            Value::Bytes(&token),
            Value::Text(name),
            Value::Bytes(step),
            Value::State(known_state(claim)),
        ];
        let call = Call {
            what: WHAT,
            statement: &self.table.statements.steps.record,
            values: &values,
        };
        let Some(row) = self.table.ask(call).await? else {
            return Ok(Fenced::Superseded);
        };
        let is_lost: sqlx::Result<bool> = row.try_get(0);
        if is_lost.map_err(|error| backend_error(WHAT, error))? {
            let context = "the steps of the record are gone";
            return Err(BackendError::new(BackendErrorKind::Unreadable, context).not_written());
        }
        Ok(Fenced::Applied)
    }

    async fn read_steps(&self, key: &RecordKey, claim: &Claim) -> Result<Option<RecordedSteps>, BackendError> {
        const WHAT: &str = "reading steps";
        let (id, token) = (Id::of(key), claim.token.to_bytes());
        let call = Call {
            what: WHAT,
            statement: &self.table.statements.steps.read,
            values: &[Value::Bytes(id.as_bytes()), Value::Bytes(&token)],
        };
        let rows = self.table.ask_all(call).await?;
        let Some(first) = rows.first else {
            return Ok(None);
        };
        let read = |row: &PgRow| {
            let step: (Option<String>, Option<Vec<u8>>) = (row.try_get(0)?, row.try_get(1)?);
            Ok(step)
        };
        let steps: sqlx::Result<Vec<_>> = std::iter::once(&first).chain(&rows.others).map(read).collect();
        let steps = steps.map_err(|error| backend_error(WHAT, error))?;
        // A record without steps is one row without a name.
        let named = steps.into_iter().filter_map(|(name, step)| Some((name?, step?.into())));
        Ok(Some(named.collect()))
    }

    async fn park(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        let end = End::new(key, claim, self.table.name.channel());
        let park = &self.table.statements.steps.park;
        self.owned("parking a record", park, &end.release()).await
    }
}
