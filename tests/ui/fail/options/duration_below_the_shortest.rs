use idem_axum::idempotent;

#[idempotent(ttl = "99ms", scope = global)]
async fn place_order() {}

fn main() {}
