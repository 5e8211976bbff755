use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, header = "Idempotency Key")]
async fn place_order() {}

fn main() {}
