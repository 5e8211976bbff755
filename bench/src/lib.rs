//! The handler whose cost is compared, alone and annotated, and a way to call it without sockets.
//!
//! Owns what is measured. What measures it is in the programs and tests of this package.

#![allow(clippy::expect_used, reason = "a measurement that cannot be taken is not reported")]

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::post;
use idem_axum::{Idempotency, idempotent};

pub mod within;

/// The handler alone.
pub fn bare() -> Router {
    Router::new().route("/orders", post(order))
}

/// The handler behind the attribute.
pub fn guarded(idempotency: Idempotency) -> Router {
    Router::new().route("/orders", post(annotated)).layer(idempotency)
}

/// What is answered, and so stored: as many bytes as were sent, with a status and a media type of its own.
async fn order(body: Bytes) -> impl IntoResponse {
    (StatusCode::CREATED, [(CONTENT_TYPE, "application/json")], body)
}

#[idempotent(ttl = "24h", scope = global)]
async fn annotated(body: Bytes) -> impl IntoResponse {
    order(body).await
}
