use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, max_attempts = 4294967296)]
async fn place_order() {}

fn main() {}
