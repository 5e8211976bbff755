//! Payments: an account is debited and a card is charged, once, wherever the process dies.
//!
//! Owns the service's start and end. `DATABASE_URL` is the Postgres with the ledger and the records, `PROVIDER_URL` where
//! charges are made, `PAYMENTS_ADDR` where to listen. Prints its URL once it listens.

mod payments;

use std::env;
use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use idem_axum::sqlx::{self, PgPool};
use idem_axum::{Idempotency, PostgresBackend};
use tokio::net::TcpListener;

use crate::payments::{App, pay};

/// What the service keeps besides the records. Statements that are executed together are a transaction of their own.
const SCHEMA: &str = "
    SELECT pg_advisory_xact_lock(7381);
    CREATE TABLE IF NOT EXISTS accounts (name text PRIMARY KEY, cents bigint NOT NULL CHECK (cents >= 0));
    CREATE TABLE IF NOT EXISTS ledger (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        account text NOT NULL REFERENCES accounts,
        reference text NOT NULL,
        cents bigint NOT NULL,
        charge text NOT NULL
    );
    INSERT INTO accounts VALUES ('acme', 1000000) ON CONFLICT DO NOTHING";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let pool = PgPool::connect(&env::var("DATABASE_URL")?).await?;
    sqlx::raw_sql(SCHEMA).execute(&pool).await?;
    let backend = PostgresBackend::new(pool).with_sweeper(Duration::from_mins(1));
    backend.migrate().await?;
    let idempotency = Idempotency::new(backend);
    let app = App {
        http: reqwest::Client::new(),
        provider: env::var("PROVIDER_URL")?,
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
