use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, in_flight = "rejekt")]
async fn place_order() {}

fn main() {}
