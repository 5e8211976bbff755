//! The service under test as a process: on the Redis server at `REDIS_URL`, on a free port that it prints.

use axum::Router;
use idem_axum::{Idempotency, RedisBackend};
use idem_tests::router;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let idempotency = Idempotency::new(RedisBackend::connect(&std::env::var("REDIS_URL")?).await?);
    let (router, _app) = router(&idempotency, Router::new());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}
