use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, ttl = "48h")]
async fn place_order() {}

fn main() {}
