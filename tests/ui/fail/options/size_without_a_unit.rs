use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, max_response = 1024)]
async fn place_order() {}

fn main() {}
