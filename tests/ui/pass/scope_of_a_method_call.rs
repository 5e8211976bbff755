//! Any expression over references to the arguments.

use axum::http::HeaderMap;
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

#[idempotent(ttl = "1m", scope = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default())]
async fn place_order(headers: HeaderMap) -> String {
    headers.len().min(1).to_string()
}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
}
