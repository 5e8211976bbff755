use axum::Json;
use idem_axum::idempotent;

#[derive(serde::Deserialize)]
struct NewOrder {
    order_id: Option<String>,
}

#[idempotent(ttl = "24h", scope = global, key = order.order_id)]
async fn place_order(Json(order): Json<NewOrder>) {
    drop(order);
}

fn main() {}
