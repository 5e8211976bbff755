//! A verdict beside an answer: in tuples, alone or optional, in an error, as an extension and in a response.

use std::time::Duration;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use axum::{Extension, Json};
use idem_axum::{Verdict, idempotent};

#[idempotent(ttl = "1m", scope = tenant)]
async fn place_order(Path(tenant): Path<String>) -> (StatusCode, Verdict, Json<String>) {
    (StatusCode::OK, Verdict::Keep, Json(tenant))
}

#[idempotent(ttl = "1m", scope = global)]
async fn cancel_order() -> (Verdict, StatusCode) {
    (Verdict::Release, StatusCode::NO_CONTENT)
}

#[idempotent(ttl = "1m", scope = global)]
async fn change_order() -> impl IntoResponse {
    let headers = [("x-a", "b")];
    (headers, Some(Verdict::KeepFor(Duration::from_hours(1))), "changed")
}

#[idempotent(ttl = "1m", scope = global)]
async fn list_orders() -> Result<String, (StatusCode, Verdict, &'static str)> {
    Err((StatusCode::GATEWAY_TIMEOUT, Verdict::Unknown, "no answer"))
}

#[idempotent(ttl = "1m", scope = global)]
async fn show_order() -> (Extension<Verdict>, &'static str) {
    (Extension(Verdict::Keep), "shown")
}

#[idempotent(ttl = "1m", scope = global)]
async fn trace_order() -> Response {
    let mut response = "traced".into_response();
    response.extensions_mut().insert(Verdict::Release);
    response
}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
        .delete(cancel_order)
        .put(change_order)
        .patch(list_orders)
        .get(show_order)
        .trace(trace_order)
}
