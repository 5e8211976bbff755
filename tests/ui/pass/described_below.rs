//! `#[utoipa::path]` below describes the handler.

use axum::extract::Path;
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;
use utoipa::OpenApi as _;

/// Places an order.
#[idempotent(ttl = "1m", scope = tenant)]
#[utoipa::path(
    post,
    path = "/{tenant}/orders",
    params(("tenant" = String, Path)),
    request_body = String,
    responses((status = 200, body = String))
)]
async fn place_order(Path(tenant): Path<String>, body: String) -> String {
    format!("{body} to {tenant}")
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(place_order))]
struct Described;

#[test]
fn the_description_has_the_handler() {
    assert!(Described::openapi().paths.paths.contains_key("/{tenant}/orders"));
}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
}
