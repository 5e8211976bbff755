use axum::Extension;
use idem_axum::idempotent;

#[derive(Clone)]
struct User {
    org: Option<u64>,
}

#[idempotent(ttl = "24h", scope = user.org)]
async fn place_order(Extension(user): Extension<User>) {
    drop(user);
}

fn main() {}
