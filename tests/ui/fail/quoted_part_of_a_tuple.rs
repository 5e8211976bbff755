use axum::extract::Path;
use idem_axum::idempotent;

#[idempotent(ttl = "24h", scope = ("tenant", user))]
async fn scoped_by_half(Path((tenant, user)): Path<(String, String)>) {
    drop((tenant, user));
}

#[idempotent(ttl = "24h", scope = global, key = (user, ("orders", "tenant")))]
async fn keyed_by_half(Path((tenant, user)): Path<(String, String)>) {
    drop((tenant, user));
}

fn main() {}
