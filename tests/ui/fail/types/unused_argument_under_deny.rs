#![deny(unused_variables)]

use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global)]
async fn place_order(body: String) {}

fn main() {}
