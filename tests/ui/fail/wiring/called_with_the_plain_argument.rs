use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global)]
async fn place_order(body: String) -> String {
    body
}

pub async fn call() {
    place_order(String::new()).await;
}

fn main() {}
