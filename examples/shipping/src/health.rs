//! What an orchestrator asks: whether the process lives, and whether it should get requests.
//!
//! Owns both answers. Why the service is not ready is said in one word, for whoever can ask may be anybody; the cause goes
//! to the log.

use std::error::Error;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use idem_axum::Idempotency;
use tokio::time::timeout;

use crate::db::Db;

/// Below the second or so that a probe waits, by its usual settings: an answer that says why is worth more than none.
const LIMIT: Duration = Duration::from_millis(800);

/// What has to answer before an order can be placed.
#[derive(Clone)]
pub(crate) struct Needed {
    pub(crate) idempotency: Idempotency,
    pub(crate) db: Db,
}

/// `GET /health/live`: answered by any process that answers at all. A backend that is away is no reason to restart it.
pub(crate) async fn live() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// `GET /health/ready`
pub(crate) async fn ready(State(needed): State<Needed>) -> Response {
    let (records, database) = tokio::join!(
        within_limit(needed.idempotency.check()),
        within_limit(needed.db.check())
    );
    match (records, database) {
        (Ok(()), Ok(())) => Json(serde_json::json!({ "ready": true })).into_response(),
        (Err(cause), _) => unready("records", cause.as_ref()),
        (Ok(()), Err(cause)) => unready("database", cause.as_ref()),
    }
}

fn unready(reason: &str, cause: &(dyn Error + 'static)) -> Response {
    tracing::warn!(reason, error = cause, "not ready");
    let body = Json(serde_json::json!({ "ready": false, "reason": reason }));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

async fn within_limit<E>(check: impl Future<Output = Result<(), E>>) -> Result<(), Box<dyn Error + Send + Sync>>
where
    E: Error + Send + Sync + 'static,
{
    Ok(timeout(LIMIT, check).await??)
}
