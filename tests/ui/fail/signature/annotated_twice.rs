use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global)]
#[idempotent(ttl = "1h", scope = global)]
async fn place_order(body: String) -> String {
    body
}

#[idempotent(ttl = "24h", scope = global)]
#[tracing::instrument]
#[idempotent(ttl = "24h", scope = global)]
async fn cancel_order() {}

fn main() {}
