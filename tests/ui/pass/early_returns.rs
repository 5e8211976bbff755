//! `return` and `?` end the handler and not more.

use axum::http::StatusCode;
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

#[idempotent(ttl = "1m", scope = global)]
async fn place_order(body: String) -> Result<String, StatusCode> {
    let first = body.chars().next().ok_or(StatusCode::BAD_REQUEST)?;
    for other in ['x', '{'] {
        if first == other {
            return Ok(first.to_string());
        }
    }
    Err(StatusCode::NOT_FOUND)
}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
}
