use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global)]
async fn place_order(#[cfg(all())] uri: axum::http::Uri, body: String) -> String {
    format!("{uri} {body}")
}

fn main() {}
