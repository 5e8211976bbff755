use idem_axum::idempotent;

struct Orders;

impl Orders {
    #[idempotent(ttl = "24h", scope = global)]
    async fn place(&self) {}
}

fn main() {}
