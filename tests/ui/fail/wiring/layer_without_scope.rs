//! A layer that nobody told whose key space a request belongs to.

use std::time::Duration;

use axum::Router;
use axum::routing::post;
use idem_axum::{Idempotency, IdempotencyLayer, MemoryBackend};

async fn place_order() {}

fn main() {
    let layer = IdempotencyLayer::new(Idempotency::new(MemoryBackend::new()), Duration::from_hours(24));
    let _app: Router = Router::new().route("/orders", post(place_order)).layer(layer);
}
