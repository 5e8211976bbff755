//! The service that a rolling deploy replaces. `cargo xtask rolling-deploy` builds it twice: here, with a handler that has steps, and
//! on an older commit, with the handler in `xtask/src/rolling_deploy/old_handler.rs`. So this file compiles in both versions.
//!
//! Owns the routes, the backend at `BACKEND_URL`, and the calls of the provider at `PROVIDER_URL`. Prints its URL once it listens.

mod handler;

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use idem_axum::sqlx::PgPool;
use idem_axum::{Idempotency, PostgresBackend, RedisBackend, SqliteBackend};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// How often expired records are deleted: often, so that records of the other version are found by it.
const SWEEPING: Duration = Duration::from_millis(50);

/// Where the effects are.
#[derive(Clone)]
pub(crate) struct Provider {
    http: reqwest::Client,
    url: String,
}

#[derive(Deserialize, Serialize)]
pub(crate) struct Payment {
    pub(crate) account: String,
    /// What the provider knows it by.
    pub(crate) reference: String,
    /// How much longer the answer is than what it says.
    pub(crate) answer_len: usize,
}

impl Provider {
    /// Has an effect, and returns what the provider says of it.
    pub(crate) async fn act(&self, what: &str, payment: &Payment) -> Result<String, StatusCode> {
        let asked = self
            .http
            .post(format!("{}/{what}/{}", self.url, payment.reference))
            .send();
        let answer = asked.await.and_then(reqwest::Response::error_for_status);
        let answer = answer.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        answer.text().await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// The answer to a payment, which says what the provider said.
pub(crate) fn receipt(payment: &Payment, said: &[String]) -> (StatusCode, [(&'static str, String); 1], String) {
    let mut body = said.join(", ");
    body.push_str(&".".repeat(payment.answer_len));
    let headers = [("payment-reference", payment.reference.clone())];
    (StatusCode::CREATED, headers, body)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let idempotency = connect(&std::env::var("BACKEND_URL")?).await?;
    let provider = Provider {
        http: reqwest::Client::new(),
        url: std::env::var("PROVIDER_URL")?,
    };
    let router = Router::new()
        .route("/refusing", post(handler::refusing))
        .route("/waiting", post(handler::waiting))
        .route("/unprotected", post(handler::unprotected))
        .route("/brief", post(handler::brief))
        .layer(idempotency)
        .with_state(provider);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}

async fn connect(url: &str) -> Result<Idempotency, Box<dyn Error>> {
    if url.starts_with("postgres:") {
        let backend = PostgresBackend::new(PgPool::connect(url).await?).with_sweeper(SWEEPING);
        backend.migrate().await?;
        return Ok(Idempotency::new(backend));
    }
    if let Some(path) = url.strip_prefix("sqlite:") {
        let backend = SqliteBackend::open(path).await?.with_sweeper(SWEEPING);
        return Ok(Idempotency::new(backend));
    }
    Ok(Idempotency::new(RedisBackend::connect(url).await?))
}
