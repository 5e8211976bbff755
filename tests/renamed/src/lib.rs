//! A user's crate that has `idem-axum` under another name, and whose own lints are errors.
//!
//! It is a crate of its own because both hold for a whole crate: what is public here is public, so that
//! `missing_docs` applies, and an expansion that named `idem_axum` would not compile. Compiling it is the test.

#![deny(warnings, missing_docs, clippy::pedantic, unreachable_pub, unused_qualifications)]
#![forbid(unsafe_code)]

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Json, Router};
use renamed::{Execution, Idempotency, MemoryBackend, Policy, idempotent};

/// What is ordered.
#[derive(Debug, serde::Deserialize, serde::Serialize)]
pub struct NewOrder {
    /// Its name.
    pub item: String,
}

/// Places an order.
#[idempotent(ttl = "24h", scope = tenant, crate = ::renamed)]
pub async fn place_order(Path(tenant): Path<String>, Json(order): Json<NewOrder>) -> (StatusCode, String) {
    (StatusCode::CREATED, format!("{} to {tenant}", order.item))
}

/// Changes an order.
///
/// # Errors
///
/// When there is nothing to change.
#[idempotent(
    ttl = "24h",
    scope = (tenant, 1),
    key = tenant,
    fingerprint = order,
    in_flight = "wait",
    wait = "1s",
    after_crash = "refuse",
    store = "all",
    on_outage = "run",
    engine = idempotency,
    crate = "renamed"
)]
pub async fn change_order(
    State(idempotency): State<Idempotency>,
    Path(tenant): Path<String>,
    execution: Execution,
    Json(order): Json<NewOrder>,
) -> Result<impl IntoResponse, StatusCode> {
    if order.item.is_empty() {
        return Err(StatusCode::NOT_FOUND);
    }
    Ok(execution.downstream_key("change"))
}

/// The service.
pub fn router() -> Router {
    let idempotency = Idempotency::new(MemoryBackend::new()).with_defaults(Policy::new().with_required(false));
    Router::new()
        .route("/{tenant}/orders", post(place_order).put(change_order))
        .layer(idempotency.clone())
        .with_state(idempotency)
}
