use idem_axum::idempotent;

#[idempotent(ttl, scope = "tenant id", name =, lease = "30s" required = true)]
async fn place_order(tenant: String) -> String {
    tenant
}

fn main() {}
