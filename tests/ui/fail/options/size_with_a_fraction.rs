use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, max_response = "1.5MiB")]
async fn place_order() {}

fn main() {}
