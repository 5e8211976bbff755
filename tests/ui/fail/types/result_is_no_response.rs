use idem_axum::idempotent;

struct Receipt;

#[idempotent(ttl = "24h", scope = global)]
async fn place_order() -> Receipt {
    Receipt
}

fn main() {}
