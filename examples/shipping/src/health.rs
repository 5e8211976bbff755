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

/// What the database may take. A call to idem's backend may take as long, by its own deadline.
const LIMIT: Duration = Duration::from_secs(1);

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
    let database = timeout(LIMIT, needed.db.check());
    match tokio::join!(needed.idempotency.check(), database) {
        (Ok(()), Ok(Ok(()))) => Json(serde_json::json!({ "ready": true })).into_response(),
        (Err(cause), _) => unready("records", &cause),
        (Ok(()), Ok(Err(cause))) => unready("database", &cause),
        (Ok(()), Err(elapsed)) => unready("database", &elapsed),
    }
}

fn unready(reason: &str, cause: &(dyn Error + 'static)) -> Response {
    tracing::warn!(reason, error = cause, "not ready");
    let body = Json(serde_json::json!({ "ready": false, "reason": reason }));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}
