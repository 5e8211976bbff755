//! A tuple nests, as scope and as key.

use axum::Json;
use axum::extract::Path;
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

use super::NewOrder;

#[idempotent(ttl = "1m", scope = (tenant, (1, order.item)), key = (order.order_id, (tenant, 2)))]
async fn place_order(Path(tenant): Path<String>, Json(order): Json<NewOrder>) -> String {
    order.item + &tenant
}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
}
