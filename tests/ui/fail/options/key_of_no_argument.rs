use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, key = 1 + 1)]
async fn place_order(body: String) -> String {
    body
}

fn main() {}
