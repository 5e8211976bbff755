use idem_axum::idempotent;

struct NewOrder;

#[axum::debug_handler]
#[idempotent(ttl = "24h", scope = global)]
async fn place_order(order: NewOrder, body: String) -> String {
    let NewOrder = order;
    body
}

fn main() {}
