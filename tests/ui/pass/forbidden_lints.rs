//! A crate may forbid lints: nothing of ours allows one.

#![forbid(
    unused_variables,
    unused_mut,
    unused_imports,
    unused_parens,
    dead_code,
    unreachable_code,
    non_snake_case,
    non_camel_case_types,
    clippy::pedantic
)]

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, post};
use idem_axum::{Idempotency, MemoryBackend, idempotent};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::NewOrder;

#[idempotent(ttl = "1m", scope = (tenant, format!("{number}")), key = order.item, fingerprint = order.order_id)]
async fn place_order(
    Path((tenant, number)): Path<(String, u32)>,
    Json(order): Json<NewOrder>,
) -> impl IntoResponse + Send {
    "placed"
}

#[idempotent(ttl = "1m", scope = global, fingerprint = order)]
async fn change_order<T>(Json(order): Json<T>) -> Result<impl IntoResponse + Send, Json<T>>
where
    T: Serialize + DeserializeOwned + Send + 'static,
{
    Ok("changed")
}

#[idempotent(ttl = "1m", scope = tenant, engine = idempotency)]
async fn cancel_order(State(idempotency): State<Idempotency>, Path(mut tenant): Path<String>) -> String {
    tenant.push('!');
    tenant
}

pub(crate) fn route() -> MethodRouter {
    let cancel = post(cancel_order).with_state(Idempotency::new(MemoryBackend::new()));
    cancel.put(change_order::<NewOrder>).delete(place_order)
}
