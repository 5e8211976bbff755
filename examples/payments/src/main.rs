//! Payments in durable steps: wherever the process dies, the client's retry finishes what was begun, and nothing happens twice.
//!
//! Owns the service's start and end. `DATABASE_URL` is the ledger, `postgres://…` or `sqlite:path`; `REDIS_URL` the records, which are
//! beside the ledger without it; `PROVIDER_URL` where cards are charged and receipts are sent; `PAYMENTS_ADDR` where to listen.
//! Prints its URL once it listens.

mod ledger;
mod payments;
mod provider;

use std::env;
use std::error::Error;

use axum::Router;
use axum::routing::post;
use idem_axum::{Idempotency, RedisBackend};
use tokio::net::TcpListener;

use crate::ledger::Ledger;
use crate::payments::{App, pay};
use crate::provider::Provider;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let database = env::var("DATABASE_URL")?;
    let (ledger, idempotency) = match env::var("REDIS_URL") {
        Ok(redis) => {
            let backend = RedisBackend::connect(&redis).await?;
            (Ledger::apart(&database).await?, Idempotency::new(backend))
        }
        Err(_) => Ledger::with_records(&database).await?,
    };
    let app = App {
        provider: Provider::new(env::var("PROVIDER_URL")?),
        ledger,
    };
    let router = Router::new()
        .route("/payments", post(pay))
        .layer(idempotency.clone())
        .with_state(app);
    let addr = env::var("PAYMENTS_ADDR").unwrap_or_else(|_| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(addr).await?;
    println!("http://{}", listener.local_addr()?);
    let stop = async {
        // Without the signal, it serves until it is killed.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    axum::serve(listener, router).with_graceful_shutdown(stop).await?;
    idempotency.drain().await;
    Ok(())
}
