use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global)]
fn place_order() {}

fn main() {}
