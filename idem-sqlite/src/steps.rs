//! Durable steps: rows beside the record.
//!
//! Owns reading them, and recording one in a handler's transaction. Does not own the changes of the writer: [`change`](crate::change).

use bytes::Bytes;
use idem_core::steps::{RecordedSteps, StepBackend};
use idem_core::{BackendError, Claim, EndError, EndKind, Fenced, RecordKey};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::change::OwnStep;
use crate::clock::Clock;
use crate::error::backend_error;
use crate::record::Parameters;
use crate::{JointTransaction, SqliteBackend};

impl SqliteBackend {
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
        record: (&RecordKey, &Claim),
        step: (&str, &Bytes),
        asked: impl FnOnce(),
    ) -> Result<Fenced, EndError> {
        let clock = self.changes.clock();
        let clock = clock.map_err(|error| EndError::new(EndKind::Refused).with_source(error))?;
        transaction
            .record_step((self.store(), clock), record, step, asked)
            .await
    }
}

impl StepBackend for SqliteBackend {
    async fn record_step(
        &self,
        key: &RecordKey,
        claim: &Claim,
        name: &str,
        step: &Bytes,
    ) -> Result<Fenced, BackendError> {
        let recorded = OwnStep::Record(name.to_owned(), step.clone());
        self.own(key, claim, recorded).await
    }

    async fn read_steps(&self, key: &RecordKey, claim: &Claim) -> Result<Option<RecordedSteps>, BackendError> {
        const WHAT: &str = "reading steps";
        let at = (self.changes.clock()?, Clock::now());
        let own = Parameters::own(key, claim.token).and_then(|own| own.at(at));
        let own = own.map_err(|error| backend_error(WHAT, sqlx::Error::Encode(error)))?;
        let store = self.store();
        let reading = store
            .readers
            .read_all(&store.statements.read_steps, own.into_arguments());
        let rows = reading.await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let read = |row: &SqliteRow| {
            let step: (Option<String>, Option<Vec<u8>>) = (row.try_get(0)?, row.try_get(1)?);
            Ok(step)
        };
        let steps: sqlx::Result<Vec<_>> = rows.iter().map(read).collect();
        let steps = steps.map_err(|error| backend_error(WHAT, error).not_written())?;
        // A record without steps is one row without a name.
        let named = steps.into_iter().filter_map(|(name, step)| Some((name?, step?.into())));
        Ok(Some(named.collect()))
    }

    async fn park(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.own(key, claim, OwnStep::Park).await
    }
}
