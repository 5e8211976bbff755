use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, header = "X-Key", key = body)]
async fn place_order(body: String) -> String {
    body
}

fn main() {}
