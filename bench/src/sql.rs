//! The handler on Postgres: behind twenty lines of SQL that people write by hand, and annotated.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use idem_axum::sqlx::{self, PgPool, postgres::PgPoolOptions};
use idem_axum::{Idempotency, PostgresBackend};

use idem_bench::{bare, guarded};

use crate::serve::key;

/// The connections of a variant: fewer than clients, or as many.
pub(crate) const NARROW: u32 = 16;
pub(crate) const WIDE: u32 = 64;

/// The table of the hand-written scheme.
pub(crate) const TABLE: &str = "CREATE TABLE IF NOT EXISTS floor \
     (key text PRIMARY KEY, answer bytea, created_at timestamptz NOT NULL DEFAULT now())";

/// The least there is to do: claim, run, store; no fingerprint, no fencing, no lease, and nobody deletes anything.
async fn floor(State(pool): State<PgPool>, request: Request, next: Next) -> Response {
    let key = key(request.headers());
    let claim = sqlx::query("INSERT INTO floor (key) VALUES ($1) ON CONFLICT DO NOTHING").bind(&key);
    let claimed = claim.execute(&pool).await.expect("INSERT").rows_affected();
    if claimed == 0 {
        let stored = sqlx::query_scalar("SELECT answer FROM floor WHERE key = $1").bind(&key);
        let stored: Option<Vec<u8>> = stored.fetch_one(&pool).await.expect("SELECT");
        let headers = [(CONTENT_TYPE, "application/json")];
        return match stored {
            Some(stored) => (StatusCode::CREATED, headers, stored).into_response(),
            None => StatusCode::CONFLICT.into_response(),
        };
    }
    let (parts, body) = next.run(request).await.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a body");
    let store = sqlx::query("UPDATE floor SET answer = $2 WHERE key = $1").bind(&key);
    store.bind(&body[..]).execute(&pool).await.expect("UPDATE");
    Response::from_parts(parts, Body::from(body))
}

/// The hand-written variant.
pub(crate) async fn by_hand(url: &str, connections: u32) -> Router {
    let pool = pool(url, connections).await;
    sqlx::query(TABLE).execute(&pool).await.expect("CREATE TABLE");
    bare().layer(middleware::from_fn_with_state(pool, floor))
}

/// The annotated variant, with a sweeper or without. Its connections are its own; the application's pool is there for its
/// options.
pub(crate) async fn annotated(url: &str, connections: u32, is_swept: bool) -> Router {
    let mut backend = PostgresBackend::new(pool(url, 1).await).with_connections(connections);
    backend.migrate().await.expect("CREATE TABLE");
    if is_swept {
        backend = backend.with_sweeper(Duration::from_millis(10));
    }
    guarded(Idempotency::new(backend))
}

async fn pool(url: &str, connections: u32) -> PgPool {
    let options = PgPoolOptions::new().min_connections(connections);
    let pool = options.max_connections(connections).connect(url).await;
    pool.expect("the server answers")
}
