use axum::Json;
use idem_axum::idempotent;

#[derive(serde::Deserialize)]
struct NewOrder {
    order_id: String,
}

#[idempotent(ttl = "24h", scope = global, fingerprint = (order.order_id, order))]
async fn place_order(Json(order): Json<NewOrder>) -> String {
    order.order_id
}

fn main() {}
