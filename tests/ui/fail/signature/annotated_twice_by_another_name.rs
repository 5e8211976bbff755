use idem_axum as idem;
use idem_axum::idempotent as once;

#[once(ttl = "24h", scope = global)]
#[idem_axum::idempotent(ttl = "24h", scope = global)]
async fn place_order(body: String) -> String {
    body
}

#[idem::idempotent(ttl = "24h", scope = body, crate = crate::idem)]
#[doc = "Cancels an order."]
#[once(ttl = "24h", scope = global, key = body)]
async fn cancel_order(body: String) -> String {
    body
}

fn main() {}
