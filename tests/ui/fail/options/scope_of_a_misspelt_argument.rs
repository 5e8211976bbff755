use axum::extract::Path;
use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = "tenat")]
async fn place_order(Path((tenant, user)): Path<(String, u32)>, body: String) -> String {
    format!("{tenant} {user} {body}")
}

fn main() {}
