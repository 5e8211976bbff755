//! A user's crate of edition 2021, where the last expression of a block outlives the block's variables.
//!
//! It is a crate of its own because an edition holds for a whole crate. Compiling it is the test: the body of a handler is a
//! block that the arguments are not in, as in a bare `async fn`.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::routing::post;
use axum::Router;
use idem_axum::{idempotent, Idempotency, MemoryBackend};

type Orders = Arc<Mutex<Vec<String>>>;

/// The guard of a lock is in the last expression.
#[idempotent(ttl = "24h", scope = global)]
async fn all_orders(State(orders): State<Orders>) -> String {
    orders.lock().unwrap_or_else(PoisonError::into_inner).join(", ")
}

/// An item of the body has the name of an argument's pattern.
#[idempotent(ttl = "24h", scope = global)]
async fn place_order(State(orders): State<Orders>, Path(order): Path<String>) -> String {
    use std::path::Path;
    let name = Path::new(&order).display().to_string();
    orders.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
    name
}

/// The service.
pub fn router() -> Router {
    Router::new()
        .route("/orders", post(all_orders))
        .route("/orders/{order}", post(place_order))
        .layer(Idempotency::new(MemoryBackend::new()))
        .with_state(Orders::default())
}
