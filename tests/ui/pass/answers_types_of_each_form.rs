//! Tuples, arrays, references, parentheses, boxed traits, macros and associated types as return types.

use axum::body::Body;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

macro_rules! answer {
    ($($part:ty),+) => { ($($part,)+ String) };
}

macro_rules! any_answer {
    () => { Result<Response<Body>, (StatusCode, &'static str)> };
}

trait Handles {
    type Answer: IntoResponse + Send;
}

struct Ours;

impl Handles for Ours {
    type Answer = [(&'static str, &'static str); 1];
}

/// A response that boxes what it was made of.
struct Boxed(Box<dyn Fn() -> Response + Send + Sync>);

impl IntoResponse for Boxed {
    fn into_response(self) -> Response {
        (self.0)()
    }
}

#[idempotent(ttl = "1m", scope = tenant)]
async fn place_order(Path(tenant): Path<String>) -> answer!(StatusCode) {
    (StatusCode::CREATED, tenant)
}

#[idempotent(ttl = "1m", scope = global)]
async fn cancel_order() -> any_answer!() {
    Err((StatusCode::BAD_REQUEST, "no"))
}

#[idempotent(ttl = "1m", scope = global)]
async fn change_order() -> <Ours as Handles>::Answer {
    [("x-a", "b")]
}

#[idempotent(ttl = "1m", scope = global)]
async fn show_order() -> [u8; 2 + 1] {
    *b"abc"
}

#[idempotent(ttl = "1m", scope = global)]
async fn list_orders() -> &'static [u8; 1 + 1] {
    b"ab"
}

#[idempotent(ttl = "1m", scope = global)]
#[allow(unused_parens)]
async fn probe_order() -> (Boxed) {
    Boxed(Box::new(|| "boxed".into_response()))
}

#[idempotent(ttl = "1m", scope = global)]
async fn trace_order() -> Result<(), std::convert::Infallible> {
    Ok(())
}

#[idempotent(ttl = "1m", scope = global)]
async fn options_of_order() -> Result<Box<str>, std::borrow::Cow<'static, str>> {
    Ok("any".into())
}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
        .delete(cancel_order)
        .put(change_order)
        .get(show_order)
        .patch(list_orders)
        .head(probe_order)
        .trace(trace_order)
        .options(options_of_order)
}
