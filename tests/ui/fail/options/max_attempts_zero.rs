use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, max_attempts = 0)]
async fn place_order() {}

fn main() {}
