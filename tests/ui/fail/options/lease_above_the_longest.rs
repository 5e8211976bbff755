use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, lease = "2d")]
async fn place_order() {}

fn main() {}
