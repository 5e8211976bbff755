//! Names are the author's, whatever they are.

use axum::Json;
use axum::extract::Path;
use axum::http::{HeaderMap, Method, Uri};
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

use super::NewOrder;

#[idempotent(ttl = "1m", scope = guard)]
async fn place_order(
    Path(guard): Path<String>,
    argument_1: HeaderMap,
    guarded: Method,
    returned: Uri,
    Json(last): Json<NewOrder>,
) -> String {
    let (answer, identity, run) = (guarded.as_str().len(), argument_1.len().min(1), returned.path());
    format!("{guard} {answer} {identity} {run} {}", last.item)
}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
}
