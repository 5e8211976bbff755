use idem_axum::idempotent;

struct NewOrder;

#[axum::debug_handler]
#[idempotent(ttl = "24h", scope = global)]
async fn place_order(order: NewOrder) {
    let NewOrder = order;
}

fn main() {}
