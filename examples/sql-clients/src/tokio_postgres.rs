//! tokio-postgres. It has one connection here, for which requests take turns; a service has a pool, such as `deadpool-postgres`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use idem_axum::{Joint, idempotent};
use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls, Transaction};

use crate::failure::Failure;
use crate::orders::{NewOrder, POSTGRES_SCHEMA, Receipt};

pub(crate) async fn routes(url: &str) -> Result<Router, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute(POSTGRES_SCHEMA).await?;
    let client = Arc::new(Mutex::new(client));
    Ok(Router::new().route("/orders", post(place_order)).with_state(client))
}

#[idempotent(ttl = "24h", scope = global, in_flight = "wait", lease = "1s")]
async fn place_order(
    State(client): State<Arc<Mutex<Client>>>,
    joint: Joint,
    Json(order): Json<NewOrder>,
) -> Result<Response, Failure> {
    let mut client = client.lock().await;
    let transaction = client.transaction().await?;
    let id = insert(&transaction, &order).await?;
    let record = joint.record((StatusCode::CREATED, Json(Receipt { id }))).await?;
    let changed = transaction.execute(record.sql(), &[]).await?;
    let answer = record.written(changed)?;
    transaction.commit().await?;
    Ok(answer)
}

async fn insert(transaction: &Transaction<'_>, order: &NewOrder) -> Result<i64, tokio_postgres::Error> {
    let insert = "INSERT INTO orders (item) VALUES ($1) RETURNING id";
    transaction.query_one(insert, &[&order.item]).await?.try_get(0)
}
