use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, wait = "2h", in_flight = "wait")]
async fn place_order() {}

fn main() {}
