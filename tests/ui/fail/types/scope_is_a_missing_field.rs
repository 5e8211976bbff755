use axum::Json;
use idem_axum::idempotent;

#[derive(serde::Deserialize)]
struct NewOrder {
    tenant: String,
}

#[idempotent(ttl = "24h", scope = order.tenat)]
async fn place_order(Json(order): Json<NewOrder>) -> String {
    order.tenant
}

fn main() {}
