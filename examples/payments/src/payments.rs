//! The payment itself: four steps, of which a retry repeats none that is done.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use idem_axum::{StepError, Steps, idempotent, sqlx};
use serde::{Deserialize, Serialize};

use crate::ledger::Ledger;
use crate::provider::{Capture, Provider};

/// What a payment needs.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) provider: Provider,
    pub(crate) ledger: Ledger,
}

#[derive(Deserialize, Serialize)]
pub(crate) struct Payment {
    pub(crate) account: String,
    /// What is paid for.
    pub(crate) reference: String,
    pub(crate) cents: u32,
}

#[derive(Serialize)]
pub(crate) struct Receipt {
    ledger: i64,
    charge: String,
}

/// Holds the money, captures it, notes it in the ledger and sends a receipt, each once for each key.
///
/// An attempt may end anywhere: its process is killed, the provider fails, the database is away. The client sends the request again,
/// and the next attempt gets the results of the steps that are done, and goes on after them.
#[idempotent(ttl = "24h", scope = payment.account, in_flight = "wait", lease = "1s")]
pub(crate) async fn pay(
    State(app): State<App>,
    steps: Steps,
    Json(payment): Json<Payment>,
) -> Result<(StatusCode, Json<Receipt>), PaymentError> {
    let App { provider, ledger } = &app;
    // The provider knows the key of a hold that it has made, so that the call may be repeated.
    let hold = steps
        .run("hold", |step| provider.hold(step.downstream_key(), &payment))
        .of(&payment)
        .await?;
    // It forgets the keys of captures, so that the call must not be repeated: a new attempt asks what became of it.
    let captured = steps
        .run("capture", |_| provider.capture(&hold))
        .at_most_once()
        .reconcile(|| provider.find_capture(&hold))
        .await?;
    // A refusal is a result too: it is final, and a retry must not try again.
    let Capture::Done { charge } = captured else {
        return Err(PaymentError::Declined);
    };
    let entry = ledger.debit(&steps, &payment, &charge).await?;
    steps
        .run("receipt", |step| provider.mail(step.downstream_key(), &payment))
        .await?;
    Ok((StatusCode::CREATED, Json(Receipt { ledger: entry, charge })))
}

/// Why a payment is not done. Only the first one is final: after the others, a retry goes on.
pub(crate) enum PaymentError {
    /// The bank declined. A retry under the same key is told the same.
    Declined,
    /// A step has no result.
    Step(StepError),
    /// The database failed.
    Database(sqlx::Error),
    /// The provider failed, and may have acted all the same.
    Provider(reqwest::Error),
}

impl From<StepError> for PaymentError {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
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
            Self::Declined => StatusCode::PAYMENT_REQUIRED.into_response(),
            Self::Step(error) => error.into_response(),
            Self::Database(error) => {
                tracing::error!(%error, "the database failed");
                StatusCode::SERVICE_UNAVAILABLE.into_response()
            }
            Self::Provider(error) => {
                tracing::error!(%error, "the provider failed");
                StatusCode::BAD_GATEWAY.into_response()
            }
        }
    }
}
