use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global)]
struct Order;

fn main() {}
