use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, max_response = "0B")]
async fn place_order() {}

fn main() {}
