use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, required = "true")]
async fn place_order() {}

fn main() {}
