//! Completing a claim in a transaction that the backend does not own, by whatever client the application has.
//!
//! Owns the statement as one text, and the question whether that transaction was committed. Does not own the transaction: the
//! application begins and ends it.

use std::time::Duration;

use idem_core::{BackendError, Claim, Completion, RecordKey};
use sqlx::Row as _;

use crate::PostgresBackend;
use crate::error::backend_error;
use crate::protocol::Call;
use crate::record::End;

impl PostgresBackend {
    /// The statement that completes `claim` for `ttl`, as text that contains its values.
    ///
    /// It changes one row, or none if the claim was superseded. From then on the record is locked until the transaction ends, so
    /// execute it last. [`is_completed`](Self::is_completed) tells whether the transaction was committed.
    #[must_use]
    pub fn completion_sql(
        &self,
        (key, claim): (&RecordKey, &Claim),
        (completion, ttl): (&Completion, Duration),
    ) -> String {
        let end = End::new(key, claim, self.table.name.channel());
        let call = Call {
            what: "completing in another transaction",
            statement: self.table.statements.complete_by_hand_of(claim),
            values: &end.complete(completion, ttl),
        };
        call.text()
    }

    /// Whether `claim` has been completed, also if the record has expired since. `None` if the record is gone, or is another claim's.
    ///
    /// If it has not been completed, a transaction that would complete it may still be open:
    /// [`release`](idem_core::Backend::release) waits for the end of that transaction.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached or refuses.
    pub async fn is_completed(&self, key: &RecordKey, claim: &Claim) -> Result<Option<bool>, BackendError> {
        const LOOKING: &str = "looking for a completion";
        let end = End::new(key, claim, self.table.name.channel());
        let call = Call {
            what: LOOKING,
            statement: &self.table.statements.has_ended,
            values: &end.owner(),
        };
        let row = self.table.ask(call).await?;
        let is_completed = row.map(|row| row.try_get(0)).transpose();
        is_completed.map_err(|error| backend_error(LOOKING, error))
    }
}
