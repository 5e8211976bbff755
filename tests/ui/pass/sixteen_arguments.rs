//! As many as axum allows a handler.

use axum::http::{HeaderMap, Method, Uri, Version};
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

#[allow(clippy::too_many_arguments)]
#[idempotent(ttl = "1m", scope = one)]
async fn place_order(
    one: Method,
    _: Method,
    _: Uri,
    _: Version,
    _: HeaderMap,
    _: Method,
    _: Uri,
    _: Version,
    _: HeaderMap,
    _: Method,
    _: Uri,
    _: Version,
    _: HeaderMap,
    _: Method,
    _: Uri,
    body: String,
) -> String {
    body
}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
}
