//! The service in this process, on a real socket.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::serve::ListenerExt as _;
use idem_axum::{Backend, Idempotency, MemoryBackend, RedisBackend};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::{App, Client, PostgresServer, RedisServer, SqliteFile, router};

/// A running service; it stops when this is dropped.
#[derive(Debug)]
pub struct Service {
    /// To steer its handlers.
    pub app: App,
    /// The layer it uses.
    pub idempotency: Idempotency,
    /// To call it.
    pub client: Client,
    /// Where it listens.
    pub address: SocketAddr,
    /// The server behind it, if it has one.
    pub redis: Option<RedisServer>,
    /// The one behind it that it shares with other tests.
    pub postgres: Option<Arc<PostgresServer>>,
    /// The file behind it, if it has one.
    pub sqlite: Option<SqliteFile>,
    serving: JoinHandle<()>,
}

impl Service {
    /// On the memory backend, with `more` routes.
    pub async fn memory(more: Router<App>) -> Self {
        Self::start(MemoryBackend::new(), more, None).await
    }

    /// On a Redis server of its own, with `more` routes.
    pub async fn redis(more: Router<App>) -> Self {
        let server = RedisServer::start().await;
        let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
        Self::start(backend, more, Some(server)).await
    }

    /// In a schema of its own on the Postgres server of all tests, with `more` routes.
    pub async fn postgres(more: Router<App>) -> Self {
        let server = PostgresServer::shared().await;
        let (backend, _schema) = server.backend().await;
        let mut service = Self::start(backend, more, None).await;
        service.postgres = Some(server);
        service
    }

    /// On a file of SQLite of its own, with `more` routes.
    pub async fn sqlite(more: Router<App>) -> Self {
        let file = SqliteFile::create().await;
        let mut service = Self::start(file.backend().await, more, None).await;
        service.sqlite = Some(file);
        service
    }

    /// On any backend.
    pub async fn start(backend: impl Backend, more: Router<App>, redis: Option<RedisServer>) -> Self {
        let mut service = Self::wrapped(Idempotency::new(backend), more, |router| router).await;
        service.redis = redis;
        service
    }

    /// With an `idempotency` that was set up, and whatever `wrap` puts around the router.
    pub async fn wrapped(idempotency: Idempotency, more: Router<App>, wrap: impl FnOnce(Router) -> Router) -> Self {
        let (router, app) = router(&idempotency, more);
        let router = wrap(router);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        // Small pieces of a streamed body wait for each other's acknowledgement otherwise.
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("it is open"));
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serving never ends");
        });
        Self {
            app,
            idempotency,
            client: Client::new(&format!("http://{address}")),
            address,
            redis: None,
            postgres: None,
            sqlite: None,
            serving,
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
