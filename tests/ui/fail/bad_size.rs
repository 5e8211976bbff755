use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, max_response = "1mib")]
async fn misspelt_unit() {}

#[idempotent(ttl = "24h", scope = global, max_response = 1024)]
async fn no_unit() {}

#[idempotent(ttl = "24h", scope = global, max_response = "0B")]
async fn zero() {}

#[idempotent(ttl = "24h", scope = global, max_response = "1.5MiB")]
async fn no_whole_number() {}

#[idempotent(ttl = "24h", scope = global, max_response = "65MiB")]
async fn too_large() {}

fn main() {}
