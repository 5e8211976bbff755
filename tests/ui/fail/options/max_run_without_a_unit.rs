use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, max_run = "10")]
async fn place_order() {}

fn main() {}
