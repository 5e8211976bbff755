use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, name = "")]
async fn place_order() {}

fn main() {}
