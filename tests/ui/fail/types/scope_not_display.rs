use axum::http::HeaderMap;
use idem_axum::idempotent;

struct Tenant;

impl<S: Sync> axum::extract::FromRequestParts<S> for Tenant {
    type Rejection = ();

    async fn from_request_parts(_: &mut axum::http::request::Parts, _: &S) -> Result<Self, ()> {
        Ok(Tenant)
    }
}

#[idempotent(ttl = "24h", scope = "tenant")]
async fn place_order(tenant: Tenant) {
    drop(tenant);
}

#[idempotent(ttl = "24h", scope = global, key = headers)]
async fn by_headers(headers: HeaderMap) {
    drop(headers);
}

fn main() {}
