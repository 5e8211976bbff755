use idem_axum::idempotent;

#[idempotent(ttl = "24 hours", scope = global)]
async fn unknown_unit() {}

#[idempotent(ttl = 24, scope = global)]
async fn no_unit() {}

#[idempotent(ttl = "0s", scope = global)]
async fn zero() {}

#[idempotent(ttl = "24h", scope = global, lease = "2d")]
async fn too_long() {}

fn main() {}
