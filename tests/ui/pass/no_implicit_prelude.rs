//! Not even the prelude is needed.

#![no_implicit_prelude]

use ::axum::extract::Path;
use ::axum::routing::{MethodRouter, post};
use ::idem_axum::idempotent;
use ::std::string::String;

#[idempotent(ttl = "1m", scope = (tenant, 1), key = tenant, fingerprint = tenant, in_flight = "wait", wait = "1s")]
async fn place_order(Path(tenant): Path<String>) -> String {
    tenant
}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
}
