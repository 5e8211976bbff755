//! Orders over any client of SQL: the row of an order and the record of its answer are one transaction.
//!
//! Owns the choice of the client, `sql-clients <sqlx-0.8 | tokio-postgres | diesel | sea-orm | rusqlite>`, and the service's start.
//! `DATABASE_URL` is the Postgres with the orders and the records, or for rusqlite the path of the file. Prints its URL once it
//! listens. Each client has a module with its repository and its handler; read the one of yours.

mod diesel;
mod failure;
mod orders;
mod rusqlite;
mod sea_orm;
mod sqlx_08;
mod tokio_postgres;

use std::env;
use std::error::Error;

use axum::Router;
use idem_axum::{Idempotency, PostgresBackend, SqliteBackend};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let url = env::var("DATABASE_URL")?;
    let client = env::args().nth(1).unwrap_or_default();
    let routes = match &*client {
        "sqlx-0.8" => sqlx_08::routes(&url).await?,
        "tokio-postgres" => tokio_postgres::routes(&url).await?,
        "diesel" => diesel::routes(&url).await?,
        "sea-orm" => sea_orm::routes(&url).await?,
        "rusqlite" => rusqlite::routes(&url)?,
        _ => return Err("usage: sql-clients <sqlx-0.8 | tokio-postgres | diesel | sea-orm | rusqlite>".into()),
    };
    let idempotency = idempotency(&client, &url).await?;
    let app: Router = routes.layer(idempotency.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    let stop = async {
        // Without the signal, it serves until it is killed.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    idempotency.drain().await;
    Ok(())
}

/// Records in the database of the orders, over connections of their own.
async fn idempotency(client: &str, url: &str) -> Result<Idempotency, Box<dyn Error>> {
    if client == "rusqlite" {
        return Ok(Idempotency::new(SqliteBackend::open(url).await?));
    }
    let backend = PostgresBackend::connect(url).await?;
    backend.migrate().await?;
    Ok(Idempotency::new(backend))
}
