use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global)]
async fn place_order(body: String) -> ! {
    panic!("{body}")
}

fn main() {}
