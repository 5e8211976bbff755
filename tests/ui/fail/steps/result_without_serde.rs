//! A result that cannot be recorded.

use axum::http::StatusCode;
use idem_axum::{StepError, Steps, idempotent};

struct Hold;

struct Failed;

impl From<StepError> for Failed {
    fn from(_: StepError) -> Self {
        Self
    }
}

async fn hold() -> Result<Hold, Failed> {
    Ok(Hold)
}

#[idempotent(ttl = "24h", scope = global)]
async fn pay(steps: Steps) -> StatusCode {
    match steps.run("hold", |_| hold()).await {
        Ok(_) => StatusCode::CREATED,
        Err(_) => StatusCode::BAD_GATEWAY,
    }
}

fn main() {}
