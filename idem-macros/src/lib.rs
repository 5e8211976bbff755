//! The `#[idempotent]` attribute. Use it through `idem-axum`, which its expansion names.
//!
//! Three steps: what was written becomes neutral settings (`options`, by the `table`) and a signature (`handler`), these are validated,
//! and what is valid becomes tokens (`expand`). The macro parses and names; it decides nothing at run time.

mod durations;
mod expand;
#[cfg(test)]
mod golden;
mod handler;
mod identity;
mod operation;
mod options;
mod returned;
mod root;
mod sizes;
mod suggest;
mod table;
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
/// | `in_flight` | `"reject"`, `"wait"` or `"accept"`; `"reject"` | what a duplicate gets while the first one runs: 409, its answer, or 202 |
/// | `wait` | a duration, `"10s"` | the longest a duplicate waits, then 409 |
/// | `after_crash` | `"rerun"` or `"refuse"`, `"rerun"` | whether a request whose process died is run again |
/// | `store` | `"final"`, `"success"` or `"all"`; `"final"` | which answers are stored: all but 408, 425, 429 and 5xx; 2xx and 3xx; every one |
/// | `fingerprint` | `"request"`, `"none"` or an expression over the arguments; `"request"` | what tells an equal request from another one under its key |
/// | `on_outage` | `"refuse"` or `"run"`, `"refuse"` | whether the handler runs unprotected while the backend is away |
/// | `max_response` | a size, `"1MiB"` | the largest body that is stored; of a larger answer, duplicates are told that it is not |
/// | `engine` | an expression over the arguments, the layer | where the handler's `Idempotency` comes from |
/// | `crate` | a path, `::idem_axum` | where the expansion finds `idem-axum`, for a renamed dependency |
///
/// **Durations** are quoted numbers with units `ms`, `s`, `m`, `h`, `d`: `"24h"`, `"1h 30m"`.
///
/// **`scope` and `key`** see references to the handler's arguments by the names its patterns bind, and may be quoted
/// or not: `scope = "tenant"`, `scope = tenant.id`, `scope = (tenant, user.id)`, `key = order.order_id`. Each value is
/// anything that is `Display`; a tuple nests. An empty value is refused, for a missing tenant must not become a key
/// space that everybody shares.
///
/// **`fingerprint = "request"`** compares method, path with query, media type and body. An **expression**, such as
/// `fingerprint = order.order_id` or `fingerprint = (order.order_id, order.amount)`, sees the arguments as `scope` does, and
/// its value is compared by its serde form: members of maps in any order are the same, elements of sequences are not (so
/// no `HashSet`), and what it leaves out, method and path included, is not compared. It needs `serde::Serialize`, and may be quoted unless it is one of the two words.
/// With **`"none"`** every request under a key is equal.
///
/// **Sizes** are a quoted whole number with a unit `B`, `KB`, `KiB`, `MB` or `MiB`, 64 MiB at most.
///
/// # What becomes of the function
///
/// It stays an ordinary, possibly generic, `async fn` under its name, whose last argument is wrapped (axum allows a
/// handler 16 arguments, and this one too) and which returns an `axum::response::Response`. Called directly, as in a
/// unit test, it takes its last argument as `argument.into()` and runs unguarded.
///
/// The arguments are extracted before anything is claimed, from a request whose body has been read whole, within
/// axum's `DefaultBodyLimit`. The handler's body then runs in a task of its own: it needs to be `Send` and `'static`, as
/// axum wants it anyway, task-locals of the request's task are not set in it, and it runs to its end even if the client
/// leaves.
///
/// Attributes that name the arguments, such as `#[tracing::instrument(skip(body))]`, go above this one.
#[proc_macro_attribute]
pub fn idempotent(attribute: TokenStream, item: TokenStream) -> TokenStream {
    expand::idempotent(&attribute.into(), &item.into()).into()
}
