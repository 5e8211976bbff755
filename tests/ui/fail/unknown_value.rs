use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, in_flight = "rejekt")]
async fn misspelt() {}

#[idempotent(ttl = "24h", scope = global, after_crash = "explode")]
async fn unheard_of() {}

#[idempotent(ttl = "24h", scope = global, store = "succes")]
async fn cut_short() {}

#[idempotent(ttl = "24h", scope = global, on_outage = run)]
async fn unquoted() {}

fn main() {}
