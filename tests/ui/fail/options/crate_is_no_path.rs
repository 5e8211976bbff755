use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, crate = "my idem")]
async fn place_order() {}

fn main() {}
