//! `SeaORM`, with its pool.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use idem_axum::{Joint, idempotent};
use sea_orm::{ConnectionTrait, Database, DatabaseConnection, DbBackend, DbErr, Statement, TransactionTrait as _};

use crate::failure::Failure;
use crate::orders::{NewOrder, POSTGRES_SCHEMA, Receipt};

pub(crate) async fn routes(url: &str) -> Result<Router, DbErr> {
    let database = Database::connect(url).await?;
    database.execute_unprepared(POSTGRES_SCHEMA).await?;
    Ok(Router::new().route("/orders", post(place_order)).with_state(database))
}

#[idempotent(ttl = "24h", scope = global, in_flight = "wait", lease = "1s")]
async fn place_order(
    State(database): State<DatabaseConnection>,
    joint: Joint,
    Json(order): Json<NewOrder>,
) -> Result<Response, Failure> {
    let transaction = database.begin().await?;
    let id = insert(&transaction, &order).await?;
    let record = joint.record((StatusCode::CREATED, Json(Receipt { id }))).await?;
    let written = transaction.execute_unprepared(record.sql()).await?;
    let answer = record.written(written.rows_affected())?;
    transaction.commit().await?;
    Ok(answer)
}

async fn insert(connection: &impl ConnectionTrait, order: &NewOrder) -> Result<i64, DbErr> {
    let insert = "INSERT INTO orders (item) VALUES ($1) RETURNING id";
    let insert = Statement::from_sql_and_values(DbBackend::Postgres, insert, [order.item.clone().into()]);
    let row = connection.query_one_raw(insert).await?;
    row.ok_or_else(|| DbErr::RecordNotInserted)?.try_get_by_index(0)
}
