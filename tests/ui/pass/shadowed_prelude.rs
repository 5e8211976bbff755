//! Whatever the author calls `Result`, `Ok` or `std`.

#![allow(
    dead_code,
    non_camel_case_types,
    reason = "these are in the way of what expansions name"
)]

use axum::extract::Path;
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

type Result = ();
type Response = ();
type Option<T> = [T; 0];
type String_ = ::std::string::String;
struct Ok;
struct Err;
struct None;
struct Some;
struct Box;
struct Policy;
struct Into;
trait Future {}
trait IntoResponse {}
trait Send {}
mod std {}
mod core {}
mod axum_ {}
mod idem_axum_ {}

#[idempotent(ttl = "1m", scope = (tenant, 1), key = tenant, fingerprint = tenant, in_flight = "wait", wait = "1s")]
async fn place_order(Path(tenant): Path<String_>) -> String_ {
    tenant
}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
}
