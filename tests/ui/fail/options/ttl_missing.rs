use idem_axum::idempotent;

#[idempotent(scope = global)]
async fn place_order() {}

fn main() {}
