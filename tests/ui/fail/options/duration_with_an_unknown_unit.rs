use idem_axum::idempotent;

#[idempotent(ttl = "24 hours", scope = global)]
async fn place_order() {}

fn main() {}
