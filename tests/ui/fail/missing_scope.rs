use idem_axum::idempotent;

#[idempotent(ttl = "24h")]
async fn place_order(tenant: String) -> String {
    tenant
}

fn main() {}
