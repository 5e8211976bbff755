use idem_axum::idempotent;

struct Orders;

#[idempotent(ttl = "24h", scope = global)]
impl Orders {
    async fn place() {}
}

fn main() {}
