#![deny(deprecated)]

use idem_axum::idempotent;

#[utoipa::path(post, path = "/orders", request_body = String, responses((status = 200, body = String)))]
#[idempotent(ttl = "24h", scope = global)]
async fn place_order(body: String) -> String {
    body
}

fn main() {}
