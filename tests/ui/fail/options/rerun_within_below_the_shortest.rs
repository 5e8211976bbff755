use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, rerun_within = "1ms")]
async fn place_order() {}

fn main() {}
