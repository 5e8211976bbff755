use idem_axum::{Idempotency, MemoryBackend};
use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, engine = idempotency())]
async fn place_order(body: String) -> String {
    body
}

fn idempotency() -> Idempotency {
    Idempotency::new(MemoryBackend::new())
}

fn main() {}
