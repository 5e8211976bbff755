use axum::Json;
use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global)]
async fn place_order(Json(item): Json<String>) -> String {
    item
}

pub async fn place_orders(Json(items): Json<Vec<String>>) {
    for item in items {
        place_order(Json(item).into()).await;
    }
}

fn main() {}
