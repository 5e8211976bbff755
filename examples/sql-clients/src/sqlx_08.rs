//! sqlx 0.8, with a pool.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use idem_axum::{Joint, idempotent};
use sqlx_08::{PgConnection, PgPool};

use crate::failure::Failure;
use crate::orders::{NewOrder, POSTGRES_SCHEMA, Receipt};

pub(crate) async fn routes(url: &str) -> Result<Router, sqlx_08::Error> {
    let pool = PgPool::connect(url).await?;
    sqlx_08::raw_sql(POSTGRES_SCHEMA).execute(&pool).await?;
    Ok(Router::new().route("/orders", post(place_order)).with_state(pool))
}

#[idempotent(ttl = "24h", scope = global, in_flight = "wait", lease = "1s")]
async fn place_order(
    State(pool): State<PgPool>,
    joint: Joint,
    Json(order): Json<NewOrder>,
) -> Result<Response, Failure> {
    let mut transaction = pool.begin().await?;
    let id = insert(&mut transaction, &order).await?;
    let record = joint.record((StatusCode::CREATED, Json(Receipt { id }))).await?;
    // No two of these statements are the same, so none is to be remembered as prepared.
    let statement = sqlx_08::query(record.sql()).persistent(false);
    let written = statement.execute(&mut *transaction).await?;
    let answer = record.written(written.rows_affected())?;
    transaction.commit().await?;
    Ok(answer)
}

async fn insert(connection: &mut PgConnection, order: &NewOrder) -> Result<i64, sqlx_08::Error> {
    sqlx_08::query_scalar("INSERT INTO orders (item) VALUES ($1) RETURNING id")
        .bind(&order.item)
        .fetch_one(connection)
        .await
}
