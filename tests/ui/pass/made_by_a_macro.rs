//! `macro_rules!` makes the function, its attribute, its options and its body.

use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

macro_rules! handler {
    ($name:ident, $argument:ident: $type:ty, $scope:expr, $ttl:literal, $answer:ty, $body:block) => {
        #[idempotent(ttl = $ttl, scope = $scope)]
        async fn $name($argument: $type) -> $answer $body
    };
}

handler!(place_order, body: String, body.len(), "1m", String, { body });

pub(crate) fn route() -> MethodRouter {
    post(place_order)
}
