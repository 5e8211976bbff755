//! The service under test as a process: on the Redis, Redis Cluster or Postgres at `BACKEND_URL`, on a free port that it
//! prints. With `IDEM_JOURNAL`, it has the fault lab's handlers too, which keep their journal in that file.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use idem_axum::sqlx::postgres::PgPoolOptions;
use idem_axum::{Idempotency, PostgresBackend, RedisBackend};
use idem_tests::lab::{self, Journal};
use idem_tests::router;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("BACKEND_URL")?;
    let (idempotency, pool) = if url.starts_with("postgres:") {
        let options = PgPoolOptions::new().max_connections(lab::pool::CONNECTIONS);
        let pool = options.connect(&url).await?;
        let backend = PostgresBackend::new(pool.clone());
        backend.migrate().await?;
        let idempotency = Idempotency::new(backend.with_sweeper(Duration::from_millis(50)));
        (idempotency, lab::pool::routes(pool))
    } else {
        (Idempotency::new(RedisBackend::connect(&url).await?), Router::new())
    };
    let journaled = match std::env::var_os("IDEM_JOURNAL") {
        Some(file) => lab::routes(Journal::open(Path::new(&file))).merge(pool),
        None => Router::new(),
    };
    let (router, _app) = router(&idempotency, journaled);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}
