#![deny(deprecated)]

use idem_axum::idempotent;
use utoipa::path as describe;

#[idempotent(ttl = "24h", scope = global)]
#[describe(post, path = "/orders", request_body = String, responses((status = 200, body = String)))]
async fn place_order(body: String) -> String {
    body
}

fn main() {}
