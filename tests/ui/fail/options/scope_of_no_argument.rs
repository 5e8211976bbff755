use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = std::process::id())]
async fn place_order(body: String) -> String {
    body
}

fn main() {}
