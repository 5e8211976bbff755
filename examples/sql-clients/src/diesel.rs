//! diesel, by diesel-async. It has one connection here, for which requests take turns; a service has a pool, by a feature of
//! diesel-async.

use std::error::Error;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use diesel::{ExpressionMethods as _, QueryResult, sql_query};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _};
use idem_axum::{Joint, idempotent};
use tokio::sync::Mutex;

use crate::failure::Failure;
use crate::orders::{NewOrder, POSTGRES_SCHEMA, Receipt};

diesel::table! {
    orders (id) {
        id -> BigInt,
        item -> Text,
    }
}

pub(crate) async fn routes(url: &str) -> Result<Router, Box<dyn Error>> {
    let mut connection = AsyncPgConnection::establish(url).await?;
    connection.batch_execute(POSTGRES_SCHEMA).await?;
    let connection = Arc::new(Mutex::new(connection));
    Ok(Router::new().route("/orders", post(place_order)).with_state(connection))
}

#[idempotent(ttl = "24h", scope = global, in_flight = "wait", lease = "1s")]
async fn place_order(
    State(connection): State<Arc<Mutex<AsyncPgConnection>>>,
    joint: Joint,
    Json(order): Json<NewOrder>,
) -> Result<Response, Failure> {
    let mut connection = connection.lock().await;
    let placing = connection.transaction(async |connection| {
        let id = insert(connection, &order).await?;
        let record = joint.record((StatusCode::CREATED, Json(Receipt { id }))).await?;
        let changed = sql_query(record.sql()).execute(connection).await?;
        // An error rolls back.
        Ok::<_, Failure>(record.written(changed)?)
    });
    placing.await
}

async fn insert(connection: &mut AsyncPgConnection, order: &NewOrder) -> QueryResult<i64> {
    diesel::insert_into(orders::table)
        .values(orders::item.eq(&order.item))
        .returning(orders::id)
        .get_result(connection)
        .await
}
