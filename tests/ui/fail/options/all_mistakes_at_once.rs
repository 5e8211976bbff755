use idem_axum::idempotent;

#[idempotent(tll = "24h", lease = "never", required = "yes", header = "a b", name = "", required = true)]
fn place_order() {}

fn main() {}
