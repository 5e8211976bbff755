use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = "body", crate = ::my_idem)]
async fn place_order(body: String) -> String {
    body
}

fn main() {}
