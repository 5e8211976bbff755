//! A name that is made at run time.

use axum::http::StatusCode;
use idem_axum::{StepError, Steps, idempotent};

#[idempotent(ttl = "24h", scope = global)]
async fn pay(steps: Steps, orders: String) -> Result<StatusCode, StepError> {
    for order in orders.lines() {
        steps.run(&format!("ship-{order}"), async |_| Ok::<u32, StepError>(1)).await?;
    }
    Ok(StatusCode::CREATED)
}

fn main() {}
