//! What an application does to its own pool of connections to Postgres, on demand.
//!
//! Owns the routes by which the lab lets a process misuse its pool, and their callers. Records are none of the pool's
//! business: they go over connections of idem's own.

use std::time::Duration;

use axum::extract::Path;
use axum::routing::post;
use axum::{Extension, Json, Router};
use futures_util::future::join_all;
use reqwest::Method;
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, PgPool, Postgres};
use tokio::time::{sleep, timeout};

use super::fleet::Fleet;
use crate::{App, Client};

/// How many connections the pool has at most.
pub const CONNECTIONS: u32 = 20;

/// How long one connection of the pool is waited for.
const TURN: Duration = Duration::from_millis(500);

/// What a part of the application leaves behind on a connection that it gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Poison {
    OpenTransaction,
    FailedTransaction,
    Role,
    ReadOnly,
    TimeLimit,
}

impl Poison {
    pub(super) const ALL: [Self; 5] = [
        Self::OpenTransaction,
        Self::FailedTransaction,
        Self::Role,
        Self::ReadOnly,
        Self::TimeLimit,
    ];

    /// The statements that do it. Those of a failed transaction fail, which is the point.
    fn sql(self) -> &'static str {
        match self {
            Self::OpenTransaction => "BEGIN",
            Self::FailedTransaction => "BEGIN; SELECT nothing",
            Self::Role => "SET ROLE nobody_at_all",
            Self::ReadOnly => "SET default_transaction_read_only = on",
            Self::TimeLimit => "SET statement_timeout = 1",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OpenTransaction => "pool poisoned, open transaction",
            Self::FailedTransaction => "pool poisoned, failed transaction",
            Self::Role => "pool poisoned, role without rights",
            Self::ReadOnly => "pool poisoned, read only",
            Self::TimeLimit => "pool poisoned, time limit of 1 ms",
        }
    }
}

/// Lets every process poison the connections that lie idle in its pool, and returns the server's ids of them.
pub(super) async fn poison(fleet: &Fleet, poison: Poison) -> Vec<i32> {
    let calls = fleet.processes().into_iter().map(async |(_, client)| {
        let call = client.call(Method::POST, "/pool/poison").body(poison.sql());
        // A process may be told to die meanwhile.
        let answer = call.try_send().await.ok();
        answer
            .filter(|answer| answer.status.is_success())
            .map(|answer| answer.json())
    });
    let ids = join_all(calls).await.into_iter().flatten();
    ids.flat_map(|ids| serde_json::from_value::<Vec<i32>>(ids).expect("a list of ids"))
        .collect()
}

/// Lets every process hold all connections of its pool for so long.
pub(super) async fn exhaust(fleet: &Fleet, length: Duration) {
    let path = format!("/pool/hold/{}", length.as_millis());
    let hold = async |client: Client| client.call(Method::POST, &path).try_send().await;
    // A process may be told to die meanwhile.
    join_all(fleet.processes().into_iter().map(|(_, client)| hold(client))).await;
}

/// The routes that do it.
pub fn routes(pool: PgPool) -> Router<App> {
    Router::new()
        .route("/pool/poison", post(poison_idle))
        .route("/pool/hold/{millis}", post(hold_all))
        .layer(Extension(pool))
}

async fn poison_idle(Extension(pool): Extension<PgPool>, sql: String) -> Json<Vec<i32>> {
    let mut ids = Vec::new();
    for mut connection in take(&pool, pool.num_idle().max(1)).await {
        let id = sqlx::query_scalar("SELECT pg_backend_pid()");
        let id: sqlx::Result<i32> = id.fetch_one(&mut *connection).await;
        ids.extend(id.ok());
        let _ = sqlx::raw_sql(AssertSqlSafe(sql.clone()))
            .execute(&mut *connection)
            .await;
    }
    Json(ids)
}

async fn hold_all(Extension(pool): Extension<PgPool>, Path(millis): Path<u64>) {
    let most = usize::try_from(CONNECTIONS).unwrap_or_default();
    let held = take(&pool, most).await;
    sleep(Duration::from_millis(millis)).await;
    drop(held);
}

/// Up to so many connections at a time.
async fn take(pool: &PgPool, most: usize) -> Vec<PoolConnection<Postgres>> {
    let taken = join_all((0..most).map(|_| timeout(TURN, pool.acquire()))).await;
    taken.into_iter().flatten().flatten().collect()
}
