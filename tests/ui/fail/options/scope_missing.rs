use idem_axum::idempotent;

#[idempotent(ttl = "24h")]
async fn place_order() {}

fn main() {}
