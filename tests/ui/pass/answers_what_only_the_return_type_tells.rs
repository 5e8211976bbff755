//! The error type of the stream is known from `impl Trait` alone.

use std::convert::Infallible;

use axum::response::sse::{Event, Sse};
use axum::routing::{MethodRouter, post};
use futures_util::{Stream, StreamExt as _, stream};
use idem_axum::idempotent;

#[idempotent(ttl = "1m", scope = global)]
async fn place_order() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(stream::iter([Event::default().data("placed")]).map(Ok))
}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
}
