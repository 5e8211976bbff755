use idem_axum::{Verdict, idempotent};

#[idempotent(ttl = "24h", scope = global)]
async fn place_order() -> Verdict {
    Verdict::Release
}

#[idempotent(ttl = "24h", scope = global)]
async fn cancel_order() -> Result<String, Verdict> {
    Err(Verdict::Release)
}

fn main() {}
