//! The contract of `Backend`, on every backend.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::redis::aio::ConnectionLike;
use ::redis::cluster::ClusterClient;
use bytes::Bytes;
use idem_axum::{PostgresBackend, RedisBackend, SqliteBackend, sqlx};
use idem_core::conformance::Subject;
use idem_core::inspect::{
    Cursor, Finding, Inspect, Inspector, LiveClaim, Page, RecordDetails, RecordVersion, Selection, Settled, Settlement,
};
use idem_core::steps::{RecordedSteps, StepBackend, StepStore};
use idem_core::{Acquisition, Backend, BackendError, Changed, Claim, Completion, Fenced, Record, RecordKey};
use idem_tests::{PostgresServer, RedisCluster, RedisServer, SqliteFile};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tokio::sync::Mutex;

mod memory {
    idem_core::conformance!(async { idem_core::MemoryBackend::new() });
    idem_core::conformance_of_steps!(async { idem_core::MemoryBackend::new() });
    idem_core::conformance_of_inspection!(async { idem_core::MemoryBackend::new() });
}

/// One that was told nothing.
mod scripted {
    idem_core::conformance!(async { idem_axum::testing::ScriptedBackend::new(idem_core::MemoryBackend::new()) });
    idem_core::conformance_of_steps!(async {
        idem_axum::testing::ScriptedBackend::new(idem_core::MemoryBackend::new())
    });
    idem_core::conformance_of_inspection!(async {
        idem_axum::testing::ScriptedBackend::new(idem_core::MemoryBackend::new())
    });
}

mod redis {
    idem_core::conformance!(super::OnRedis::start());
    idem_core::conformance_of_steps!(super::OnRedis::start());
    idem_core::conformance_of_inspection!(super::OnRedis::start());
}

mod cluster {
    idem_core::conformance!(super::OnCluster::start());
    idem_core::conformance_of_steps!(super::OnCluster::start());
    idem_core::conformance_of_inspection!(super::OnCluster::start());
}

mod postgres {
    idem_core::conformance!(super::OnPostgres::start());
    idem_core::conformance_of_steps!(super::OnPostgres::start());
    idem_core::conformance_of_inspection!(super::OnPostgres::start());
}

mod sqlite {
    idem_core::conformance!(super::OnSqlite::start());
    idem_core::conformance_of_steps!(super::OnSqlite::start());
    idem_core::conformance_of_inspection!(super::OnSqlite::start());
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

    async fn lose_steps(&self, key: &RecordKey) -> bool {
        lost_steps(&mut self.server.connection().await, key).await
    }
}

/// Writes over a record past the backend.
async fn spoiled(connection: &mut (impl ConnectionLike + Send), key: &RecordKey) -> bool {
    let mut set = ::redis::cmd("SET");
    set.arg(format!("idem:{{{key}}}")).arg("somebody else's").arg("XX");
    let said: String = set.query_async(connection).await.expect("the record is there");
    said == "OK"
}

/// Deletes the steps of a record past the backend.
async fn lost_steps(connection: &mut (impl ConnectionLike + Send), key: &RecordKey) -> bool {
    let mut del = ::redis::cmd("DEL");
    del.arg(format!("idem:{{{key}}}:s"));
    let deleted: i64 = del.query_async(connection).await.expect("the server answers");
    deleted == 1
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

    async fn lose_steps(&self, key: &RecordKey) -> bool {
        let client = ClusterClient::new(self.cluster.urls().to_vec()).expect("a client");
        let mut connection = client.get_async_connection().await.expect("the cluster answers");
        lost_steps(&mut connection, key).await
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

    async fn lose_steps(&self, key: &RecordKey) -> bool {
        let sql = format!(
            "DELETE FROM {0}.idem_records_steps WHERE id = (SELECT id FROM {0}.idem_records WHERE key = $1)",
            self.schema
        );
        let losing = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(key.as_str());
        let lost = losing.execute(&mut self.server.connection().await).await;
        lost.expect("the tables are there").rows_affected() == 1
    }
}

/// Two backends on one file, and the file that has to live as long.
struct OnSqlite {
    backend: InTurn,
    file: SqliteFile,
}

/// Each call goes to the other one of two backends, so that a record is written by one and read by the other, as by two processes.
#[derive(Debug)]
struct InTurn {
    backends: [SqliteBackend; 2],
    calls: AtomicUsize,
}

impl InTurn {
    fn next(&self) -> &SqliteBackend {
        &self.backends[self.calls.fetch_add(1, Ordering::Relaxed) % 2]
    }
}

impl Backend for InTurn {
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        self.next().claim(key, claim).await
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        self.next().take_over(key, lapsed, claim).await
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.next().renew(key, claim).await
    }

    async fn complete(
        &self,
        key: &RecordKey,
        claim: &Claim,
        completion: &Completion,
        ttl: Duration,
    ) -> Result<Fenced, BackendError> {
        self.next().complete(key, claim, completion, ttl).await
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.next().release(key, claim).await
    }

    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, BackendError> {
        self.next().read(key).await
    }

    async fn changed(&self, key: &RecordKey) -> Result<Changed, BackendError> {
        self.next().changed(key).await
    }

    async fn check(&self) -> Result<(), BackendError> {
        self.next().check().await
    }

    fn steps(&self) -> Option<StepStore<'_>> {
        Some(StepStore::of(self))
    }

    fn inspector(&self) -> Option<Inspector<'_>> {
        Some(Inspector::of(self))
    }
}

impl Inspect for InTurn {
    async fn scan(&self, selection: &Selection, after: Option<&Cursor>, limit: usize) -> Result<Page, BackendError> {
        self.next().scan(selection, after, limit).await
    }

    async fn inspect(&self, key: &RecordKey) -> Result<Option<RecordDetails>, BackendError> {
        self.next().inspect(key).await
    }

    async fn settle(
        &self,
        key: &RecordKey,
        version: RecordVersion,
        settlement: &Settlement,
        live: LiveClaim,
    ) -> Result<Settled, BackendError> {
        self.next().settle(key, version, settlement, live).await
    }

    async fn diagnose(&self) -> Result<Vec<Finding>, BackendError> {
        self.next().diagnose().await
    }
}

impl StepBackend for InTurn {
    async fn record_step(
        &self,
        key: &RecordKey,
        claim: &Claim,
        name: &str,
        step: &Bytes,
    ) -> Result<Fenced, BackendError> {
        self.next().record_step(key, claim, name, step).await
    }

    async fn read_steps(&self, key: &RecordKey, claim: &Claim) -> Result<Option<RecordedSteps>, BackendError> {
        self.next().read_steps(key, claim).await
    }

    async fn park(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.next().park(key, claim).await
    }
}

impl OnSqlite {
    async fn start() -> Self {
        let file = SqliteFile::create().await;
        let backend = || {
            let options = SqliteConnectOptions::new().filename(file.path());
            SqliteBackend::new(SqlitePool::connect_lazy_with(options))
        };
        let (backends, calls) = ([backend(), backend()], AtomicUsize::new(0));
        let backend = InTurn { backends, calls };
        Self { backend, file }
    }
}

impl Subject for OnSqlite {
    type Backend = InTurn;

    fn backend(&self) -> &InTurn {
        &self.backend
    }

    async fn spoil(&self, key: &RecordKey) -> bool {
        let spoiling = sqlx::query("UPDATE idem_records SET state = 9 WHERE key = $1").bind(key.as_str());
        let spoiled = spoiling.execute(&mut self.file.stranger().await).await;
        spoiled.expect("the table is there").rows_affected() == 1
    }

    async fn lose_steps(&self, key: &RecordKey) -> bool {
        let losing = sqlx::query("DELETE FROM idem_records_steps WHERE key = $1").bind(key.as_str());
        let lost = losing.execute(&mut self.file.stranger().await).await;
        lost.expect("the tables are there").rows_affected() == 1
    }
}
