//! The handler whose cost is compared, alone and annotated, and a way to call it without sockets.
//!
//! Owns what is measured. What measures it is in the programs and tests of this package.

#![allow(clippy::expect_used, reason = "a measurement that cannot be taken is not reported")]

use std::time::Duration;

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

/// The handler behind the attribute; and at `/slow` and `/slower` those that take their time and let duplicates wait.
pub fn guarded(idempotency: Idempotency) -> Router {
    Router::new()
        .route("/orders", post(annotated))
        .route("/slow", post(slow))
        .route("/slower", post(slower))
        .layer(idempotency)
}

/// What is answered, and so stored: as many bytes as were sent, with a status and a media type of its own.
async fn order(body: Bytes) -> impl IntoResponse {
    (StatusCode::CREATED, [(CONTENT_TYPE, "application/json")], body)
}

/// How long a request to `/slow` takes.
pub const SLOW: Duration = Duration::from_millis(50);

#[idempotent(ttl = "24h", scope = global, in_flight = "wait", wait = "60s")]
async fn slow(body: Bytes) -> impl IntoResponse {
    tokio::time::sleep(SLOW).await;
    order(body).await
}

/// Long enough for thousands to come and wait.
#[idempotent(ttl = "24h", scope = global, in_flight = "wait", wait = "60s")]
async fn slower(body: Bytes) -> impl IntoResponse {
    tokio::time::sleep(SLOW * 100).await;
    order(body).await
}

#[idempotent(ttl = "24h", scope = global)]
async fn annotated(body: Bytes) -> impl IntoResponse {
    order(body).await
}
