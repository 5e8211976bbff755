use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, lease = "30s" required = true)]
async fn place_order() {}

fn main() {}
