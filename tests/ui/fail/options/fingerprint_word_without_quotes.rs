use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, fingerprint = none)]
async fn place_order(body: String) -> String {
    body
}

fn main() {}
