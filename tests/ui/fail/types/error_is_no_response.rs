use idem_axum::idempotent;

struct Refused;

#[idempotent(ttl = "24h", scope = global)]
async fn place_order() -> Result<String, Refused> {
    Err(Refused)
}

fn main() {}
