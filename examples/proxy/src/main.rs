//! `cargo run -p proxy -- http://127.0.0.1:3000`: a proxy in front of that service, on port 4000.
//!
//! Records are in the Redis at `REDIS_URL`, or in memory without it.

use std::process::ExitCode;
use std::sync::Arc;

use idem_axum::{Idempotency, MemoryBackend, RedisBackend};
use tokio::net::TcpListener;
use tokio::signal;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let upstream = std::env::args().nth(1).ok_or("usage: proxy <upstream>")?;
    let idempotency = match std::env::var("REDIS_URL") {
        Ok(url) => Idempotency::new(RedisBackend::connect(&url).await?),
        Err(_unset) => Idempotency::new(MemoryBackend::new()),
    };
    // A real proxy reads these from where its tenants are kept.
    let tenants = [
        ("acme-token".to_owned(), "acme".to_owned()),
        ("globex-token".to_owned(), "globex".to_owned()),
    ];
    let app = proxy::router(&upstream, Arc::new(tenants.into()), idempotency.clone())?;
    let listener = TcpListener::bind("127.0.0.1:4000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let stopped = async { drop(signal::ctrl_c().await) };
    axum::serve(listener, app).with_graceful_shutdown(stopped).await?;
    idempotency.drain().await;
    Ok(())
}
