//! A layer whose second scope would replace the first one.

use std::time::Duration;

use axum::Router;
use axum::routing::post;
use idem_axum::{Idempotency, IdempotencyLayer, MemoryBackend};

async fn place_order() {}

fn main() {
    let layer = IdempotencyLayer::new(Idempotency::new(MemoryBackend::new()), Duration::from_hours(24))
        .scope_extension(|tenant: &String| tenant.clone())
        .scope_global();
    let _app: Router = Router::new().route("/orders", post(place_order)).layer(layer);
}
