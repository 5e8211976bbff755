//! The handlers of this version: a payment in two steps.
//!
//! The old version has the same routes and scopes, so both versions address the same records.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use idem_axum::{StepError, Steps, idempotent};

use crate::{Payment, Provider, receipt};

/// Why a payment is not done. A retry goes on.
pub(crate) enum PaymentError {
    Step(StepError),
    Provider(StatusCode),
}

impl From<StepError> for PaymentError {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
}

impl IntoResponse for PaymentError {
    fn into_response(self) -> Response {
        match self {
            Self::Step(error) => error.into_response(),
            Self::Provider(status) => status.into_response(),
        }
    }
}

async fn pay(provider: &Provider, steps: &Steps, payment: &Payment) -> Result<Response, PaymentError> {
    let act = async |what| provider.act(what, payment).await.map_err(PaymentError::Provider);
    // Before the first step, the record is one that the old version can read.
    act("begin").await?;
    let hold = steps.run("hold", |_| act("hold")).of(payment).await?;
    let capture = steps.run("capture", |_| act("capture")).await?;
    Ok(receipt(payment, &[hold, capture]).into_response())
}

#[idempotent(ttl = "1h", scope = payment.account, lease = "2s")]
pub(crate) async fn refusing(
    State(provider): State<Provider>,
    steps: Steps,
    Json(payment): Json<Payment>,
) -> Result<Response, PaymentError> {
    pay(&provider, &steps, &payment).await
}

#[idempotent(ttl = "1h", scope = payment.account, lease = "2s", in_flight = "wait")]
pub(crate) async fn waiting(
    State(provider): State<Provider>,
    steps: Steps,
    Json(payment): Json<Payment>,
) -> Result<Response, PaymentError> {
    pay(&provider, &steps, &payment).await
}

#[idempotent(ttl = "1h", scope = payment.account, lease = "2s", on_outage = "run")]
pub(crate) async fn unprotected(
    State(provider): State<Provider>,
    steps: Steps,
    Json(payment): Json<Payment>,
) -> Result<Response, PaymentError> {
    pay(&provider, &steps, &payment).await
}

/// Its records expire soon.
#[idempotent(ttl = "2s", scope = payment.account, lease = "2s")]
pub(crate) async fn brief(
    State(provider): State<Provider>,
    steps: Steps,
    Json(payment): Json<Payment>,
) -> Result<Response, PaymentError> {
    pay(&provider, &steps, &payment).await
}
