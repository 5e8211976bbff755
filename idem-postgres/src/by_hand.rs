//! Completing a claim in a transaction that the backend does not own, by whatever client the application has.
//!
//! Owns the statement as one text, and the question whether that transaction was committed. Does not own the transaction: the
//! application begins and ends it.

use std::time::Duration;

use idem_core::{BackendError, Claim, Completion, Fenced, RecordKey};

use crate::PostgresBackend;
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
            statement: &self.table.statements.complete,
            values: &end.complete(completion, ttl),
        };
        call.text()
    }

    /// Whether `claim` has been completed. If it has not, a transaction that would complete it may still be open:
    /// [`release`](idem_core::Backend::release) waits for the end of that transaction.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached or refuses.
    pub async fn is_completed(&self, key: &RecordKey, claim: &Claim) -> Result<bool, BackendError> {
        let end = End::new(key, claim, self.table.name.channel());
        let statement = &self.table.statements.is_completed;
        let found = self.owned("looking for a completion", statement, &end.owner()).await?;
        Ok(found == Fenced::Applied)
    }
}
