//! The contract of `Backend`, on every backend.

use std::sync::{Arc, Weak};

use idem_axum::RedisBackend;
use idem_core::conformance::Subject;
use idem_tests::{RedisCluster, RedisServer};
use tokio::sync::Mutex;

mod memory {
    idem_core::conformance!(async { idem_core::MemoryBackend::new() });
}

mod redis {
    idem_core::conformance!(super::OnRedis::start());
}

mod cluster {
    idem_core::conformance!(super::OnCluster::start());
}

/// The backend, and the server that has to live as long.
struct OnRedis {
    backend: RedisBackend,
    _server: RedisServer,
}

impl OnRedis {
    async fn start() -> Self {
        let server = RedisServer::start().await;
        let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
        Self {
            backend,
            _server: server,
        }
    }
}

impl Subject for OnRedis {
    type Backend = RedisBackend;

    fn backend(&self) -> &RedisBackend {
        &self.backend
    }
}

/// The backend, and the cluster that has to live as long: one for all tests that run at a time, since nodes take
/// seconds to agree.
struct OnCluster {
    backend: RedisBackend,
    _cluster: Arc<RedisCluster>,
}

impl OnCluster {
    async fn start() -> Self {
        static RUNNING: Mutex<Weak<RedisCluster>> = Mutex::const_new(Weak::new());
        let mut running = RUNNING.lock().await;
        let cluster = match running.upgrade() {
            Some(cluster) => cluster,
            None => Arc::new(RedisCluster::start().await),
        };
        *running = Arc::downgrade(&cluster);
        let backend = RedisBackend::connect(&cluster.url())
            .await
            .expect("the cluster answers");
        Self {
            backend,
            _cluster: cluster,
        }
    }
}

impl Subject for OnCluster {
    type Backend = RedisBackend;

    fn backend(&self) -> &RedisBackend {
        &self.backend
    }
}
