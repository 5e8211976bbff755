use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, fingerprint = bodi.len())]
async fn place_order(body: String) -> String {
    body
}

fn main() {}
