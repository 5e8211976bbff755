use idem_axum::idempotent;

struct NewOrder;

#[idempotent(ttl = "24h", scope = global)]
#[axum::debug_handler]
async fn place_order(order: NewOrder) {
    let NewOrder = order;
}

fn main() {}
