//! `impl A + B` at each place of a return type, with lifetimes, captures and parameters.

#![deny(warnings)]

use std::fmt::Display;

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{AppendHeaders, IntoResponse, IntoResponseParts, Response};
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;
use serde::Serialize;

use super::NewOrder;

#[idempotent(ttl = "1m", scope = tenant)]
async fn place_order(Path(tenant): Path<String>, Json(order): Json<NewOrder>) -> impl IntoResponse + Send {
    format!("{} to {tenant}", order.item)
}

#[idempotent(ttl = "1m", scope = global)]
async fn cancel_order(body: String) -> Result<impl IntoResponse + Send + 'static, impl IntoResponse + Display> {
    if body.is_empty() { Err("empty") } else { Ok(body) }
}

#[idempotent(ttl = "1m", scope = global)]
async fn change_order<T>(Json(order): Json<T>) -> impl IntoResponse + use<T>
where
    T: serde::de::DeserializeOwned + Serialize + Send + 'static,
{
    Json(order)
}

#[idempotent(ttl = "1m", scope = global)]
async fn list_orders<'a, T, const N: usize>(Json(order): Json<T>) -> impl IntoResponse + Sync + use<'a, T, N>
where
    T: serde::de::DeserializeOwned + Serialize + Send + Sync + 'a + 'static,
{
    let _ = N;
    Json(order)
}

#[idempotent(ttl = "1m", scope = global)]
async fn show_order() -> (StatusCode, impl IntoResponseParts + Send, Json<impl Serialize + Send>) {
    (StatusCode::OK, AppendHeaders([("x-a", "b")]), Json(["a"]))
}

#[idempotent(ttl = "1m", scope = global)]
async fn probe_order() -> (impl IntoResponse + Send) {
    StatusCode::NO_CONTENT
}

#[idempotent(ttl = "1m", scope = global)]
async fn trace_order() -> impl IntoResponse + use<> {
    StatusCode::NO_CONTENT
}

#[idempotent(ttl = "1m", scope = global)]
async fn options_of_order<T: IntoResponse + Default + Send + 'static>() -> Result<impl IntoResponse + Send, T> {
    if size_of::<T>() > 1024 {
        return Err(T::default());
    }
    Ok("options")
}

macro_rules! answering {
    ($name:ident, $answer:ty) => {
        #[idempotent(ttl = "1m", scope = global)]
        async fn $name() -> $answer {
            "made"
        }
    };
}

answering!(connect_order, impl IntoResponse + Send + use<>);

/// A method with parameters of its own, and of its block's.
struct Orders<L>(L);

impl<L: Default + IntoResponse + Send + 'static> Orders<L> {
    #[idempotent(ttl = "1m", scope = global)]
    async fn place(body: String) -> (StatusCode, impl Display + IntoResponse + Send) {
        drop(Orders(L::default()).0);
        (StatusCode::OK, body)
    }

    #[idempotent(ttl = "1m", scope = global)]
    async fn replace<T: Default + IntoResponse + Send + 'static>(body: String) -> impl IntoResponse + Send + use<T, L> {
        drop(body);
        T::default()
    }
}

pub(crate) fn route() -> MethodRouter {
    post(place_order)
        .delete(cancel_order)
        .put(change_order::<NewOrder>)
        .patch(list_orders::<NewOrder, 3>)
        .get(show_order)
        .head(probe_order)
        .trace(trace_order)
        .options(options_of_order::<String>)
        .connect(connect_order)
}

#[test]
fn methods_are_handlers_as_well() {
    let routes: [MethodRouter; 2] = [
        post(Orders::<String>::place),
        post(Orders::<Response>::replace::<String>),
    ];
    drop(routes);
}
