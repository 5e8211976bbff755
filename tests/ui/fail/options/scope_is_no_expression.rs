use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = "tenant id")]
async fn place_order(body: String) -> String {
    body
}

fn main() {}
