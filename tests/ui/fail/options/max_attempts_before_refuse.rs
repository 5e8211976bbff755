use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, max_attempts = 5, after_crash = "refuse")]
async fn place_order() {}

fn main() {}
