use axum::Router;
use axum::routing::post;
use idem_axum::idempotent;

struct NewOrder;

#[idempotent(ttl = "24h", scope = global)]
async fn place_order(order: NewOrder, body: String) -> String {
    let NewOrder = order;
    body
}

pub fn routes() -> Router {
    Router::new().route("/orders", post(place_order))
}

fn main() {}
