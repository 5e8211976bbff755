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

macro_rules! in_one_key_space {
    ($name:ident, $expr:expr, $root:path, $required:expr) => {
        #[idempotent(ttl = "1m", scope = $expr, crate = $root, required = $required)]
        async fn $name() {}
    };
    ($name:ident, $ident:ident) => {
        #[idempotent(ttl = "1m", scope = $ident)]
        async fn $name() {}
    };
    ($name:ident = $path:path) => {
        #[idempotent(ttl = "1m", scope = $path)]
        async fn $name() {}
    };
}

macro_rules! through {
    ($name:ident, $expr:expr) => {
        in_one_key_space!($name, $expr, ::idem_axum, true);
    };
}

in_one_key_space!(by_expression, global, ::idem_axum, false);
in_one_key_space!(by_ident, global);
in_one_key_space!(by_path = global);
through!(by_two_macros, global);

pub(crate) fn route() -> MethodRouter {
    post(place_order)
        .put(by_expression)
        .patch(by_ident)
        .delete(by_two_macros)
        .get(by_path)
}
