use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, after_crash = "explode")]
async fn place_order() {}

fn main() {}
