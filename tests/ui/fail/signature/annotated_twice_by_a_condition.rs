use idem_axum::idempotent;

// Of these two there is only ever one.
#[cfg_attr(unix, idempotent(ttl = "24h", scope = global))]
#[cfg_attr(not(unix), idempotent(ttl = "1h", scope = global))]
async fn place_order(body: String) -> String {
    body
}

#[idempotent(ttl = "24h", scope = global)]
#[cfg_attr(all(), idempotent(ttl = "1h", scope = global))]
async fn cancel_order(body: String) -> String {
    body
}

fn main() {}
