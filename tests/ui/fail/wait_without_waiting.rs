use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, wait = "10s")]
async fn nobody_waits() {}

#[idempotent(ttl = "24h", scope = global, wait = "10s", in_flight = "accept")]
async fn nobody_waits_either() {}

#[idempotent(ttl = "24h", scope = global, wait = "2h", in_flight = "wait")]
async fn longer_than_anybody_does() {}

fn main() {}
