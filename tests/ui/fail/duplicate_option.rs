use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, ttl = "48h")]
async fn twice() {}

#[idempotent(r#ttl = "24h", scope = global, ttl = "48h")]
async fn twice_though_raw() {}

fn main() {}
