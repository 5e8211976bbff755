//! The body borrows from its arguments while it waits.

use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

#[idempotent(ttl = "1m", scope = global)]
async fn place_order(body: String) -> String {
    let words: Vec<&str> = body.split(',').collect();
    tokio::task::yield_now().await;
    let shout = async |word: &str| word.to_uppercase();
    shout(words[0]).await
}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
}
