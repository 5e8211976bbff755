use idem_axum::idempotent;

#[idempotent(ttl = "3651d", scope = global)]
async fn place_order() {}

fn main() {}
