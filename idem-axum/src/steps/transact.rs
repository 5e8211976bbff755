//! Steps whose effects are rows: they and the step's record are committed together.
//!
//! Owns the method. Does not own the order in which such a step is run: [`idem_sql::transact`].

use idem_sql::{StepTransaction, TransactError};

use super::{StepError, Steps};

impl Steps {
    /// Runs a step whose effects are rows in the database of the records, Postgres or SQLite: the rows and the step's record are
    /// committed together, or not at all. Await the result.
    ///
    /// `body` gets a connection of the application's pool that is in a transaction: `async |connection: &mut PgConnection| …`. Its
    /// error rolls back and passes through. The other rules are those of [`run`](Self::run); the body needs no downstream key, and
    /// no `at_most_once`.
    ///
    /// Call it before the handler's [`Transaction`](crate::Transaction) begins, and not inside of the body of another `transact`: it is
    /// [`StepErrorKind::InTransaction`](crate::StepErrorKind::InTransaction) otherwise, because it would wait for a transaction that
    /// ends after it. Leave COMMIT and ROLLBACK to it: a body that executes them is not run again, and its result is lost.
    ///
    /// ```
    /// use axum::http::StatusCode;
    /// use idem_axum::sqlx::{self, PgConnection};
    /// use idem_axum::{StepError, Steps, idempotent};
    ///
    /// # enum PayError { Step(StepError), Database(sqlx::Error) }
    /// # impl From<StepError> for PayError { fn from(error: StepError) -> Self { Self::Step(error) } }
    /// # impl From<sqlx::Error> for PayError { fn from(error: sqlx::Error) -> Self { Self::Database(error) } }
    /// # impl axum::response::IntoResponse for PayError {
    /// #     fn into_response(self) -> axum::response::Response { StatusCode::SERVICE_UNAVAILABLE.into_response() }
    /// # }
    /// #[idempotent(ttl = "24h", scope = global)]
    /// async fn pay(steps: Steps, account: String) -> Result<StatusCode, PayError> {
    ///     let debit = async |connection: &mut PgConnection| {
    ///         let debit = "UPDATE accounts SET cents = cents - 100 WHERE name = $1 RETURNING cents";
    ///         let left = sqlx::query_scalar(debit).bind(&account).fetch_one(connection).await?;
    ///         Ok::<i64, PayError>(left)
    ///     };
    ///     let left = steps.transact("debit", debit).await?;
    ///     Ok(if left < 0 { StatusCode::ACCEPTED } else { StatusCode::CREATED })
    /// }
    /// ```
    ///
    /// Where the handler runs unprotected, the transaction is committed without a record.
    pub fn transact<C, B>(&self, name: &'static str, body: B) -> StepTransaction<'_, C, B, StepError> {
        StepTransaction::new(self.core(), self.slot.sql(), name, body)
    }
}

impl TransactError for StepError {
    fn of_unprotected(error: idem_core::StepError) -> Self {
        Self {
            error,
            is_unprotected: true,
        }
    }
}
