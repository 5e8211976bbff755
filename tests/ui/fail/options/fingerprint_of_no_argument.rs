use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, fingerprint = 1)]
async fn place_order(body: String) -> String {
    body
}

fn main() {}
