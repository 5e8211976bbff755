use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, name =, lease = "30s")]
async fn place_order() {}

fn main() {}
