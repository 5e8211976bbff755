use idem_axum::idempotent;

trait Orders {
    #[idempotent(ttl = "24h", scope = global)]
    async fn place();
}

fn main() {}
