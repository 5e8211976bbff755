use idem_axum::idempotent;

#[idempotent(tll = "24h", scope = global)]
async fn place_order() {}

fn main() {}
