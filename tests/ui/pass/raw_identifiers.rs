//! Raw names of a handler, an argument and an option.

#![deny(unused_variables)]

use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

#[idempotent(r#ttl = "1m", scope = r#type)]
async fn r#move(r#type: String) -> String {
    r#type
}

pub(crate) fn route() -> MethodRouter {
    post(r#move)
}
