use idem_axum::idempotent;

#[idempotent(ttl, scope = global)]
async fn place_order() {}

fn main() {}
