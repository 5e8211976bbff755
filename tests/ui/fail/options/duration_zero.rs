use idem_axum::idempotent;

#[idempotent(ttl = "0s", scope = global)]
async fn place_order() {}

fn main() {}
