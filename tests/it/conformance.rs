//! The contract of `Backend`, on every backend.

use std::sync::{Arc, Weak};

use ::redis::aio::ConnectionLike;
use ::redis::cluster::ClusterClient;
use idem_axum::{PostgresBackend, RedisBackend, sqlx};
use idem_core::RecordKey;
use idem_core::conformance::Subject;
use idem_tests::{PostgresServer, RedisCluster, RedisServer};
use tokio::sync::Mutex;

mod memory {
    idem_core::conformance!(async { idem_core::MemoryBackend::new() });
}

/// One that was told nothing.
mod scripted {
    idem_core::conformance!(async { idem_axum::testing::ScriptedBackend::new(idem_core::MemoryBackend::new()) });
}

mod redis {
    idem_core::conformance!(super::OnRedis::start());
}

mod cluster {
    idem_core::conformance!(super::OnCluster::start());
}

mod postgres {
    idem_core::conformance!(super::OnPostgres::start());
}

/// The backend, and the server that has to live as long.
struct OnRedis {
    backend: RedisBackend,
    server: RedisServer,
}

impl OnRedis {
    async fn start() -> Self {
        let server = RedisServer::start().await;
        let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
        Self { backend, server }
    }
}

impl Subject for OnRedis {
    type Backend = RedisBackend;

    fn backend(&self) -> &RedisBackend {
        &self.backend
    }

    async fn spoil(&self, key: &RecordKey) -> bool {
        spoiled(&mut self.server.connection().await, key).await
    }
}

/// Writes over a record past the backend.
async fn spoiled(connection: &mut (impl ConnectionLike + Send), key: &RecordKey) -> bool {
    let mut set = ::redis::cmd("SET");
    set.arg(format!("idem:{{{key}}}")).arg("somebody else's").arg("XX");
    let said: String = set.query_async(connection).await.expect("the record is there");
    said == "OK"
}

/// The backend, and the cluster that has to live as long: one for all tests that run at a time, since nodes take
/// seconds to agree.
struct OnCluster {
    backend: RedisBackend,
    cluster: Arc<RedisCluster>,
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
        Self { backend, cluster }
    }
}

impl Subject for OnCluster {
    type Backend = RedisBackend;

    fn backend(&self) -> &RedisBackend {
        &self.backend
    }

    async fn spoil(&self, key: &RecordKey) -> bool {
        let client = ClusterClient::new(self.cluster.urls().to_vec()).expect("a client");
        let mut connection = client.get_async_connection().await.expect("the cluster answers");
        spoiled(&mut connection, key).await
    }
}

/// The backend, in a schema of its own, and the server that has to live as long.
struct OnPostgres {
    backend: PostgresBackend,
    schema: String,
    server: Arc<PostgresServer>,
}

impl OnPostgres {
    async fn start() -> Self {
        let server = PostgresServer::shared().await;
        let (backend, schema) = server.backend().await;
        Self {
            backend,
            schema,
            server,
        }
    }
}

impl Subject for OnPostgres {
    type Backend = PostgresBackend;

    fn backend(&self) -> &PostgresBackend {
        &self.backend
    }

    async fn spoil(&self, key: &RecordKey) -> bool {
        let sql = format!("UPDATE {}.idem_records SET state = 9 WHERE key = $1", self.schema);
        let spoiling = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(key.as_str());
        let spoiled = spoiling.execute(&mut self.server.connection().await).await;
        spoiled.expect("the table is there").rows_affected() == 1
    }
}
