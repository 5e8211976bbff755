//! The service under test as a process: on the Redis, Redis Cluster, Postgres or file of SQLite at `BACKEND_URL`, on a free port
//! that it prints. With `IDEM_JOURNAL`, it has the fault lab's handlers too, which keep their journal in that file. With `IDEM_CALLS`,
//! it records all calls on its backend in that file. With `IDEM_BROKER` beside the journal, it is a consumer of the messages of the fault
//! lab's queue at that address, too.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use idem_axum::sqlx::postgres::PgPoolOptions;
use idem_axum::{Backend, Idempotency, PostgresBackend, RedisBackend, SqliteBackend};
use idem_core::Engine;
use idem_core::spec::history::Recorder;
use idem_tests::lab::{self, CallLog, Journal};
use idem_tests::router;
use tokio::net::TcpListener;

/// How often expired records are deleted: often enough that it is among what goes wrong.
const SWEEPING: Duration = Duration::from_millis(50);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("BACKEND_URL")?;
    let (idempotency, transacting) = if url.starts_with("postgres:") {
        let options = PgPoolOptions::new().max_connections(lab::pool::CONNECTIONS);
        let pool = options.connect(&url).await?;
        let backend = PostgresBackend::new(pool.clone());
        backend.migrate().await?;
        let backend = backend.with_sweeper(SWEEPING);
        let idempotency = recorded(backend);
        let routes = lab::transacting_in_postgres().merge(lab::pool::routes(pool));
        (idempotency, routes)
    } else if let Some(path) = url.strip_prefix("sqlite:") {
        let backend = SqliteBackend::open(path).await?.with_sweeper(SWEEPING);
        let idempotency = recorded(backend);
        (idempotency, lab::transacting_in_sqlite())
    } else {
        (recorded(RedisBackend::connect(&url).await?), Router::new())
    };
    let journal = std::env::var_os("IDEM_JOURNAL").map(|file| Journal::open(Path::new(&file)));
    if let (Some(journal), Ok(broker)) = (&journal, std::env::var(lab::broker::BROKER)) {
        let engine = AsRef::<Engine>::as_ref(&idempotency).clone();
        tokio::spawn(lab::broker::consume(engine, broker, journal.clone()));
    }
    let journaled = match journal {
        Some(journal) => lab::routes(journal, transacting),
        None => Router::new(),
    };
    let (router, _app) = router(&idempotency, journaled);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}

/// Keeps records in `backend`, and records the calls on it if it is told to.
fn recorded(backend: impl Backend) -> Idempotency {
    match std::env::var_os("IDEM_CALLS") {
        Some(file) => {
            let log = CallLog::open(Path::new(&file));
            Idempotency::new(Recorder::new(backend, std::process::id(), log))
        }
        None => Idempotency::new(backend),
    }
}
