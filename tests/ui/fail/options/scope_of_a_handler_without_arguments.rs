use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = tenant)]
async fn place_order() {}

fn main() {}
