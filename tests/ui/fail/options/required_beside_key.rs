use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, key = body, required = false)]
async fn place_order(body: String) -> String {
    body
}

fn main() {}
