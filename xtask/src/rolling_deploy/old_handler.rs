//! The handlers of the old version: the same payment without steps.
//!
//! `cargo xtask rolling-deploy` compiles this file on the older commit, in the place of the one beside the service's `main.rs`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use idem_axum::idempotent;

use crate::{Payment, Provider, receipt};

async fn pay(provider: &Provider, payment: &Payment) -> Result<Response, StatusCode> {
    provider.act("begin", payment).await?;
    let hold = provider.act("hold", payment).await?;
    let capture = provider.act("capture", payment).await?;
    Ok(receipt(payment, &[hold, capture]).into_response())
}

#[idempotent(ttl = "1h", scope = payment.account, lease = "2s")]
pub(crate) async fn refusing(
    State(provider): State<Provider>,
    Json(payment): Json<Payment>,
) -> Result<Response, StatusCode> {
    pay(&provider, &payment).await
}

#[idempotent(ttl = "1h", scope = payment.account, lease = "2s", in_flight = "wait")]
pub(crate) async fn waiting(
    State(provider): State<Provider>,
    Json(payment): Json<Payment>,
) -> Result<Response, StatusCode> {
    pay(&provider, &payment).await
}

#[idempotent(ttl = "1h", scope = payment.account, lease = "2s", on_outage = "run")]
pub(crate) async fn unprotected(
    State(provider): State<Provider>,
    Json(payment): Json<Payment>,
) -> Result<Response, StatusCode> {
    pay(&provider, &payment).await
}

/// Its records expire soon.
#[idempotent(ttl = "2s", scope = payment.account, lease = "2s")]
pub(crate) async fn brief(
    State(provider): State<Provider>,
    Json(payment): Json<Payment>,
) -> Result<Response, StatusCode> {
    pay(&provider, &payment).await
}
