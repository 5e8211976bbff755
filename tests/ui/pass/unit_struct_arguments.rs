//! Patterns that are unit structs bind nothing, wherever the argument stands.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

struct Authenticated;

#[allow(non_camel_case_types, reason = "a name that only its type tells from a variable")]
struct authenticated;

impl<S: Sync> FromRequestParts<S> for Authenticated {
    type Rejection = ();

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, ()> {
        Ok(Self)
    }
}

impl<S: Sync> FromRequestParts<S> for authenticated {
    type Rejection = ();

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, ()> {
        Ok(Self)
    }
}

#[idempotent(ttl = "1m", scope = tenant)]
async fn place_order(Path(tenant): Path<String>, Authenticated: Authenticated) -> String {
    tenant
}

#[idempotent(ttl = "1m", scope = global)]
async fn cancel_order(authenticated: authenticated) {}

#[idempotent(ttl = "1m", scope = body.len())]
async fn change_order(Authenticated: Authenticated, authenticated: authenticated, body: String) -> String {
    body
}

#[idempotent(ttl = "1m", scope = tenant)]
async fn show_order(Path(tenant): Path<String>, Authenticated { .. }: Authenticated) -> String {
    tenant
}

pub(crate) fn route() -> MethodRouter {
    post(place_order).delete(cancel_order).put(change_order).get(show_order)
}
