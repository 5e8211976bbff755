use axum::extract::State;
use idem_axum::idempotent;

#[derive(Clone)]
struct App;

#[idempotent(ttl = "24h", scope = global, engine = app.idempotency)]
async fn place_order(State(app): State<App>) {
    let App = app;
}

fn main() {}
