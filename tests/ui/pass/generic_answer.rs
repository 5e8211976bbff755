//! A type parameter in the return type, inside `impl Trait` too.

use axum::Json;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::NewOrder;

#[idempotent(ttl = "1m", scope = global)]
async fn place_order<T>(Json(order): Json<T>) -> Result<impl IntoResponse + use<T>, Json<T>>
where
    T: Serialize + DeserializeOwned + Send + 'static,
{
    if size_of::<T>() == 0 {
        return Err(Json(order));
    }
    Ok(Json(order))
}

pub(crate) fn route() -> MethodRouter {
    post(place_order::<NewOrder>)
}
