//! `#[cfg]` and `#[cfg_attr]` above and below, on the handler and in its body.

use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

#[cfg(test)]
#[idempotent(ttl = "1m", scope = global)]
async fn place_order(body: String) -> String {
    #[cfg(not(test))]
    compile_error!("the body is compiled as it is written");
    body
}

#[idempotent(ttl = "1m", scope = global)]
#[cfg(not(test))]
async fn place_order(body: String) -> NoSuchType {
    body
}

#[cfg_attr(test, idempotent(ttl = "1m", scope = global))]
#[cfg_attr(not(test), no_such_attribute)]
async fn cancel_order() {}

pub(crate) fn route() -> MethodRouter {
    post(place_order).delete(cancel_order)
}
