use axum::http::Uri;
use idem_axum::idempotent;

#[axum::debug_handler]
#[idempotent(ttl = "24h", scope = global)]
async fn place_order(body: String, uri: Uri) -> String {
    format!("{uri} {body}")
}

fn main() {}
