//! A handler of another module is described, has the same name and is imported by a glob: nothing is said of this one.

#![deny(warnings)]

use axum::extract::Path;
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

mod first_version {
    use axum::extract::Path;
    use axum::routing::{MethodRouter, post};
    use idem_axum::idempotent;

    #[idempotent(ttl = "1m", scope = tenant)]
    #[utoipa::path(post, path = "/{tenant}/orders", request_body = String, responses((status = 200, body = String)))]
    pub(crate) async fn place_order(Path(tenant): Path<String>, body: String) -> String {
        format!("{body} to {tenant}")
    }

    #[utoipa::path(delete, path = "/{tenant}/orders", responses((status = 200)))]
    pub(crate) async fn cancel_order() {}

    #[utoipa::path(put, path = "/{tenant}/orders", responses((status = 200)))]
    pub(crate) async fn change_order() {}

    /// Where they are used.
    pub(crate) fn first_version() -> MethodRouter {
        post(place_order).delete(cancel_order).put(change_order)
    }
}

use first_version::*;

#[idempotent(ttl = "1m", scope = tenant)]
async fn place_order(Path(tenant): Path<String>, body: String) -> String {
    format!("{body} to {tenant}")
}

#[tracing::instrument(skip_all)]
#[idempotent(ttl = "1m", scope = global)]
async fn cancel_order(body: String) -> String {
    body.trim().to_owned()
}

macro_rules! handler {
    ($name:ident, $body:ident, $block:block) => {
        #[idempotent(ttl = "1m", scope = global)]
        async fn $name($body: String) -> String $block
    };
}

handler!(change_order, body, { body });

pub(crate) fn route() -> MethodRouter {
    drop(first_version());
    post(place_order).delete(cancel_order).put(change_order)
}
