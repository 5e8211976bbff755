use axum::extract::Path;
use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = "tenat")]
async fn misspelt(Path((tenant, user)): Path<(String, u32)>, body: String) -> String {
    format!("{tenant} {user} {body}")
}

#[idempotent(ttl = "24h", scope = std::process::id())]
async fn of_nobody(id: String) -> String {
    id
}

#[idempotent(ttl = "24h", scope = global, key = 1 + 1)]
async fn one_key_for_all(body: String) -> String {
    body
}

#[idempotent(ttl = "24h", scope = "global")]
async fn of_everybody(global: String) -> String {
    global
}

fn main() {}
