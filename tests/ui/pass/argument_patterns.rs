//! Patterns take arguments apart, with `mut`, `ref` and `_`.

use axum::Json;
use axum::extract::{OriginalUri, Path};
use axum::http::HeaderMap;
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

use super::NewOrder;

#[idempotent(ttl = "1m", scope = tenant, key = item)]
async fn place_order(
    Path(mut tenant): Path<String>,
    _: HeaderMap,
    OriginalUri(ref uri): OriginalUri,
    Json(NewOrder { mut item, order_id: _ }): Json<NewOrder>,
) -> String {
    tenant.push('!');
    item.push_str(uri.path());
    item + &tenant
}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
}
