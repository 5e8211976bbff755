//! An error of the body that cannot say what a step may say.

use axum::http::StatusCode;
use idem_axum::{Steps, idempotent};

struct Failed;

async fn hold() -> Result<u32, Failed> {
    Ok(1)
}

#[idempotent(ttl = "24h", scope = global)]
async fn pay(steps: Steps) -> StatusCode {
    match steps.run("hold", |_| hold()).await {
        Ok(_) => StatusCode::CREATED,
        Err(_) => StatusCode::BAD_GATEWAY,
    }
}

fn main() {}
