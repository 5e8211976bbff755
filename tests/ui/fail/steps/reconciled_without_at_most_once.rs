//! A reconciliation of a step that may run again anyhow.

use axum::http::StatusCode;
use idem_axum::{StepError, Steps, idempotent};

#[idempotent(ttl = "24h", scope = global)]
async fn pay(steps: Steps) -> Result<StatusCode, StepError> {
    let body = async |_| Ok::<u32, StepError>(1);
    steps.run("capture", body).reconcile(async || Ok(None)).await?;
    Ok(StatusCode::CREATED)
}

fn main() {}
