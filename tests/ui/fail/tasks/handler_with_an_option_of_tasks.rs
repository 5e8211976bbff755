#![allow(unused)]

use idem_axum::idempotent;

#[idempotent(ttl = "1h", scope = global, max_result = "1KiB")]
async fn order() {}

fn main() {}
