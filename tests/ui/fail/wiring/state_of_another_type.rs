use axum::extract::State;
use axum::Router;
use axum::routing::post;
use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global)]
async fn place_order(State(number): State<u32>) -> String {
    number.to_string()
}

pub fn routes() -> Router {
    Router::new().route("/orders", post(place_order)).with_state("text")
}

fn main() {}
