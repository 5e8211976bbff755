use std::rc::Rc;

use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global)]
async fn place_order(body: String) -> String {
    let shared = Rc::new(body);
    std::future::ready(()).await;
    shared.to_string()
}

fn main() {}
