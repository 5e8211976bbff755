//! The contract of `Backend`, on both backends.

use idem_axum::RedisBackend;
use idem_core::conformance::Subject;
use idem_tests::RedisServer;

mod memory {
    idem_core::conformance!(async { idem_core::MemoryBackend::new() });
}

mod redis {
    idem_core::conformance!(super::OnRedis::start());
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
