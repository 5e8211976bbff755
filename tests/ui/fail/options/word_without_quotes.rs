use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, on_outage = run)]
async fn place_order() {}

fn main() {}
