use axum::http::HeaderMap;
use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, key = headers)]
async fn place_order(headers: HeaderMap) {
    drop(headers);
}

fn main() {}
