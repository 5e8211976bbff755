use idem_axum::idempotent;

#[idempotent]
async fn place_order() {}

fn main() {}
