use idem_axum::idempotent;

#[idempotent(tll = "24h", scope = global)]
async fn misspelt() {}

#[idempotent(ttl = "24h", scope = global, expires = "24h")]
async fn unheard_of() {}

fn main() {}
