//! `#[utoipa::path]` above describes the handler, and the compiler says what the description lacks.

use axum::Json;
use axum::extract::Path;
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;
use utoipa::OpenApi as _;

use super::NewOrder;

#[utoipa::path(post, path = "/{tenant}/orders", request_body = String, responses((status = 200, body = String)))]
#[idempotent(ttl = "1m", scope = tenant)]
#[expect(deprecated, reason = "that is how it says so")]
async fn place_order(Path(tenant): Path<String>, Json(order): Json<NewOrder>) -> String {
    format!("{} to {tenant}", order.item)
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
