use axum::extract::State;
use idem_axum::Idempotency;
use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = global, engine = ap.idempotency)]
async fn place_order(State(app): State<Idempotency>) {
    drop(app);
}

fn main() {}
