//! The service's life: backend, listener, serving, and an end that loses nothing.
//!
//! Owns the order of those things and the failures of each, by the variable that causes them. What is served is in
//! [`app`] and [`operators`].

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use idem_axum::sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use idem_axum::sqlx::{self, PgPool};
use idem_axum::{BackendError, Idempotency, PostgresBackend, RedisBackend, SqliteBackend};
use metrics_exporter_prometheus::BuildError;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::app::{self, App};
use crate::config::{self, Config, Records};
use crate::db::{Db, OpenError};
use crate::health::Needed;
use crate::{metrics, operators, orders};

/// How long handlers and outcomes may take once every connection is closed.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// How often records that have expired are deleted from the database.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);

/// What the line on stdout begins with, before the URL.
pub(crate) const LISTENING: &str = "listening on ";

/// Why the service could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("{}: Redis cannot be used", config::REDIS_URL.name)]
    Redis(#[source] BackendError),
    #[error("{}: records cannot be kept there", config::DATABASE_URL.name)]
    Records(#[source] BackendError),
    #[error("{}: records cannot be kept there", config::DATABASE_URL.name)]
    Pool(#[source] sqlx::Error),
    #[error("{}: the database cannot be used", config::DATABASE_URL.name)]
    Database(#[from] OpenError),
    #[error("{}: cannot listen on {addr}", config::ADDR.name)]
    Listen { addr: SocketAddr, source: io::Error },
    #[error("nothing can be counted")]
    Metrics(#[from] BuildError),
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    #[error("serving failed")]
    Serve(#[source] io::Error),
}

/// A service that accepts connections and is ready to answer them.
pub(crate) struct Service {
    listener: TcpListener,
    addr: SocketAddr,
    router: Router,
    idempotency: Idempotency,
    db: Db,
}

impl Service {
    pub(crate) async fn start(config: Config) -> Result<Self, ServeError> {
        // Before idem, which describes what it counts to the recorder that is there.
        let metrics = metrics::install()?;
        let db = Db::open(&config.database_url).await?;
        let (idempotency, place_order) = match config.records() {
            Records::Redis(url) => (
                Idempotency::new(redis(url).await?),
                post(orders::place_order_by_request),
            ),
            Records::Postgres(url) => (
                Idempotency::new(postgres(url).await?),
                post(orders::place_order_by_request),
            ),
            Records::Sqlite(url) => (Idempotency::new(sqlite(url).await?), post(orders::place_order)),
        };
        let app = App {
            db: db.clone(),
            tokens: Arc::new(config.tokens),
            delay: config.delay,
        };
        let needed = Needed {
            idempotency: idempotency.clone(),
            db: db.clone(),
        };
        let cannot_listen = |source| ServeError::Listen {
            addr: config.addr,
            source,
        };
        let listener = TcpListener::bind(config.addr).await.map_err(cannot_listen)?;
        Ok(Self {
            addr: listener.local_addr().map_err(cannot_listen)?,
            listener,
            router: app::router(app, idempotency.clone(), place_order).merge(operators::router(needed, metrics)),
            idempotency,
            db,
        })
    }

    /// Where it listens, with the port it got where port 0 was asked for.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Serves until `stop` resolves, and then until every request has its answer and every handler its outcome.
    pub(crate) async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), ServeError> {
        axum::serve(self.listener, self.router)
            .with_graceful_shutdown(stop)
            .await
            .map_err(ServeError::Serve)?;
        tracing::info!("every connection is closed; draining handlers whose client has left");
        // Without a backend, outcomes could be waited for all day.
        match timeout(DRAIN_LIMIT, self.idempotency.drain()).await {
            Ok(()) => tracing::info!("drained"),
            Err(_elapsed) => tracing::warn!("some outcomes could not be recorded; retries of those will run again"),
        }
        self.db.close().await;
        Ok(())
    }
}

async fn redis(url: &str) -> Result<RedisBackend, ServeError> {
    RedisBackend::connect(url).await.map_err(ServeError::Redis)
}

/// A table beside the orders, by way of a pool of its own, for theirs speaks to other databases too.
async fn postgres(url: &str) -> Result<PostgresBackend, ServeError> {
    let pool = PgPool::connect_lazy(url).map_err(ServeError::Pool)?;
    let backend = PostgresBackend::new(pool).with_sweeper(SWEEP_INTERVAL);
    backend.migrate().await.map_err(ServeError::Records)?;
    Ok(backend)
}

/// The same in the file of the orders, by connections on which a handler can write a row together with its record.
async fn sqlite(url: &str) -> Result<SqliteBackend, ServeError> {
    let options = SqliteConnectOptions::from_str(url).map_err(ServeError::Pool)?;
    let pool = SqlitePoolOptions::new().connect_lazy_with(options);
    let backend = SqliteBackend::new(pool).with_sweeper(SWEEP_INTERVAL);
    backend.migrate().await.map_err(ServeError::Records)?;
    Ok(backend)
}

/// Serves until Ctrl-C or SIGTERM.
pub(crate) async fn until_stopped(config: Config) -> Result<(), ServeError> {
    // Before anything is said: a script may send the signal as soon as it has read that the service listens.
    let stop = stop_signal().map_err(ServeError::Signals)?;
    until(config, stop).await
}

/// Serves until `stop` resolves, and says on stdout where.
pub(crate) async fn until(config: Config, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), ServeError> {
    let mut stop = Box::pin(stop);
    let service = tokio::select! {
        started = Service::start(config) => started?,
        () = &mut stop => return Ok(()),
    };
    // Nobody may be reading, which is no reason not to serve.
    let _ = writeln!(io::stdout(), "{LISTENING}{}", service.url());
    service
        .run(async {
            stop.await;
            tracing::info!("stopping: no new connections; requests that are running get their answer");
        })
        .await
}

#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            // No signal can arrive, which is no reason to stop.
            std::future::pending::<()>().await;
        }
    })
}
