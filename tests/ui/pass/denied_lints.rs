//! Nothing of ours breaks the strictest crate; clippy sees this file as any other.

#![deny(
    warnings,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications
)]
#![deny(
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used
)]
#![deny(
    clippy::absolute_paths,
    clippy::missing_docs_in_private_items,
    clippy::let_underscore_untyped,
    clippy::let_underscore_must_use,
    clippy::shadow_unrelated,
    clippy::shadow_reuse
)]
#![deny(
    elided_lifetimes_in_paths,
    let_underscore_drop,
    single_use_lifetimes,
    trivial_casts,
    unsafe_code,
    unused_results
)]
#![allow(clippy::redundant_pub_crate, reason = "contradicts `unreachable_pub`")]

use axum::Json;
use axum::extract::Path;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

use super::NewOrder;

/// Places an order.
#[idempotent(
    ttl = "1m",
    scope = tenant,
    fingerprint = order.order_id,
    in_flight = "wait",
    wait = "1s",
    lease = "2s",
    name = "denied-lints"
)]
async fn place_order(Path(tenant): Path<String>, Json(order): Json<NewOrder>) -> impl IntoResponse {
    format!("{} to {tenant}", order.item)
}

/// The route of this case.
pub(crate) fn route() -> MethodRouter {
    post(place_order)
}
