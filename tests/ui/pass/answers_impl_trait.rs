//! `impl IntoResponse`, whole and inside a `Result`.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

#[idempotent(ttl = "1m", scope = tenant)]
async fn place_order(Path(tenant): Path<String>) -> impl IntoResponse {
    ([("x-tenant", tenant)], "placed")
}

#[idempotent(ttl = "1m", scope = global)]
async fn cancel_order(body: String) -> Result<impl IntoResponse, StatusCode> {
    let number: u32 = body.parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok(format!("{number}"))
}

pub(crate) fn route() -> MethodRouter {
    post(place_order).put(cancel_order)
}
