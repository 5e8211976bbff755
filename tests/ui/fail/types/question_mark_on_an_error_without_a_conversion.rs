use axum::http::StatusCode;
use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global)]
async fn place_order(body: String) -> Result<String, StatusCode> {
    let number: u32 = body.parse()?;
    Ok(number.to_string())
}

fn main() {}
