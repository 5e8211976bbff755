use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, wait = "10s", in_flight = "reject")]
async fn place_order() {}

fn main() {}
