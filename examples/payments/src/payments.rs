//! The payment itself: rows in one transaction with the record, and a charge that carries a key of its own.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use idem_axum::{Execution, Transaction, idempotent, sqlx};
use serde::{Deserialize, Serialize};

/// What a payment needs.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) http: reqwest::Client,
    /// Where charges are made.
    pub(crate) provider: String,
}

#[derive(Deserialize, Serialize)]
pub(crate) struct Payment {
    account: String,
    /// What is paid for.
    reference: String,
    cents: u32,
}

#[derive(Serialize)]
pub(crate) struct Receipt {
    ledger: i64,
    charge: String,
}

/// Debits the account, charges the card and notes both, once for each key.
///
/// The rows are this transaction's and so are there together with the record, or not at all. The charge is somebody
/// else's: an attempt that died after it is followed by one that asks for it again under the same key, which the provider
/// answers with the charge it has made.
#[idempotent(ttl = "24h", scope = payment.account, in_flight = "wait", lease = "1s")]
pub(crate) async fn pay(
    State(app): State<App>,
    execution: Execution,
    mut transaction: Transaction,
    Json(payment): Json<Payment>,
) -> Result<(StatusCode, Json<Receipt>), PaymentError> {
    let connection = transaction.begin().await?;
    let debit = "UPDATE accounts SET cents = cents - $2 WHERE name = $1 AND cents >= $2";
    let debited = sqlx::query(debit)
        .bind(&payment.account)
        .bind(i64::from(payment.cents))
        .execute(&mut *connection)
        .await?;
    if debited.rows_affected() == 0 {
        return Err(PaymentError::Funds);
    }
    let charge = app.charge(&execution.downstream_key("charge"), &payment).await?;
    let note = "INSERT INTO ledger (account, reference, cents, charge) VALUES ($1, $2, $3, $4) RETURNING id";
    let ledger = sqlx::query_scalar(note)
        .bind(&payment.account)
        .bind(&payment.reference)
        .bind(i64::from(payment.cents))
        .bind(&charge)
        .fetch_one(&mut *connection)
        .await?;
    Ok((StatusCode::CREATED, Json(Receipt { ledger, charge })))
}

impl App {
    /// The id of a charge, made now or by an earlier attempt.
    async fn charge(&self, key: &str, payment: &Payment) -> reqwest::Result<String> {
        let charge = self.http.post(format!("{}/charges", self.provider));
        let answer = charge.header("Idempotency-Key", key).json(payment).send().await?;
        answer.error_for_status()?.text().await
    }
}

/// Why nothing was paid.
pub(crate) enum PaymentError {
    /// Final: a retry under the same key is told the same.
    Funds,
    /// The database failed. A retry runs again.
    Database(sqlx::Error),
    /// The provider failed, and may have charged all the same: a retry asks for the same charge.
    Provider(reqwest::Error),
}

impl From<sqlx::Error> for PaymentError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<reqwest::Error> for PaymentError {
    fn from(error: reqwest::Error) -> Self {
        Self::Provider(error)
    }
}

impl IntoResponse for PaymentError {
    fn into_response(self) -> Response {
        match self {
            Self::Funds => StatusCode::PAYMENT_REQUIRED,
            Self::Database(error) => {
                tracing::error!(%error, "the database failed");
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Provider(error) => {
                tracing::error!(%error, "the provider failed");
                StatusCode::BAD_GATEWAY
            }
        }
        .into_response()
    }
}
