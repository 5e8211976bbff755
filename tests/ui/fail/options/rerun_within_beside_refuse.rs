use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, after_crash = "refuse", rerun_within = "20h")]
async fn place_order() {}

fn main() {}
