//! The `#[idempotent]` attributes of handlers and of tasks. Use them through `idem-axum` and `idem-task`, which their expansions name.
//!
//! Three steps:
//!
//! 1. The attribute is parsed to neutral settings (`options`, by the `table`), and the function to a signature (`handler`).
//! 2. Both are validated. All errors are collected.
//! 3. Tokens are generated (`expand`, and `task` for tasks).
//!
//! The macro parses and names; it decides nothing at run time.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod described;
mod durations;
mod expand;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod golden;
mod handler;
mod identity;
mod operation;
mod options;
mod returned;
mod root;
mod sizes;
mod source;
mod suggest;
mod table;
mod task;
mod values;

use proc_macro::TokenStream;

/// Makes an axum handler safe to retry: of all equal requests with one idempotency key, the first runs the handler and
/// the others get its answer.
///
/// The router needs an `idem_axum::Idempotency` layer.
///
/// ```
/// use axum::Json;
/// use axum::extract::Path;
/// use idem_axum::idempotent;
///
/// #[derive(serde::Deserialize)]
/// struct NewOrder {
///     item: String,
/// }
///
/// #[idempotent(ttl = "24h", scope = "tenant")]
/// async fn place_order(Path(tenant): Path<String>, Json(order): Json<NewOrder>) -> String {
///     format!("{} for {tenant}", order.item)
/// }
/// # let _router: axum::Router = axum::Router::new().route("/{tenant}", axum::routing::post(place_order));
/// ```
///
/// # Options
///
/// | option | takes | means |
/// |---|---|---|
/// | `ttl` | a duration, required | how long a completed answer is replayed |
/// | `scope` | an expression over the arguments, or `global`; required | who owns the key space |
/// | `key` | an expression over the arguments | a natural key in place of the header |
/// | `header` | a header name, `"Idempotency-Key"` | where the client puts the key |
/// | `required` | `true` or `false`, `true` | whether a request without a key is refused or runs unprotected |
/// | `name` | a string, method and matched route | the operation's identity in stored keys |
/// | `lease` | a duration, `"30s"` | how long a claim outlives its process; running handlers renew theirs |
/// | `in_flight` | `"reject"`, `"wait"` or `"accept"`; `"reject"` | what a duplicate gets while the first one runs: 409, the first one's answer, or 202 with `Retry-After` |
/// | `wait` | a duration, `"10s"` | the longest a duplicate waits where `in_flight` is `"wait"`, then 409 |
/// | `after_crash` | `"rerun"` or `"refuse"`, `"rerun"` | whether a request whose process died is run again |
/// | `rerun_within` | a duration, no limit | for how long after its first attempt began a request whose process died is run again |
/// | `max_attempts` | a whole number, no limit | how many attempts a request may have whose process dies each time |
/// | `max_run` | a duration, no limit | for how long the claim of a running handler is renewed |
/// | `store` | `"final"`, `"success"` or `"all"`; `"final"` | which answers are stored: all but 408, 425, 429, 5xx and a 4xx with `Retry-After`; 2xx and 3xx; every one |
/// | `fingerprint` | `"request"`, `"none"` or an expression over the arguments; `"request"` | what tells an equal request from another one under its key: the request with its body; nothing; or method, path parameters, query and the expression's value |
/// | `on_outage` | `"refuse"` or `"run"`, `"refuse"` | whether the handler runs unprotected while the backend is away |
/// | `max_response` | a size, `"1MiB"` | the largest body that is stored; of a larger answer, duplicates are told that it is not |
/// | `engine` | an expression over the arguments, the layer | where the handler's `Idempotency` comes from |
/// | `crate` | a path, `::idem_axum` | where the expansion finds `idem-axum`, for a renamed dependency |
///
#[doc = include_str!("../OPTIONS.md")]
#[proc_macro_attribute]
pub fn idempotent(attribute: TokenStream, item: TokenStream) -> TokenStream {
    expand::idempotent(&attribute.into(), &item.into()).into()
}

#[doc = include_str!("../TASKS.md")]
#[proc_macro_attribute]
pub fn idempotent_task(attribute: TokenStream, item: TokenStream) -> TokenStream {
    task::idempotent(&attribute.into(), &item.into()).into()
}
