use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use idem_axum::idempotent;

struct Tenant;

impl<S: Sync> FromRequestParts<S> for Tenant {
    type Rejection = ();

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, ()> {
        Ok(Tenant)
    }
}

#[idempotent(ttl = "24h", scope = "tenant")]
async fn place_order(tenant: Tenant) {
    drop(tenant);
}

fn main() {}
