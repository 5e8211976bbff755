//! A handler that writes its row and its record in a transaction of its own: `Joint`, on Postgres and on SQLite.
//!
//! Owns the service and its database.

mod answers;
mod clients;
mod ends;
mod handler;
mod outages;
mod refusals;

use std::sync::Arc;

use axum::http::StatusCode;
use idem_axum::{Backend, PostgresBackend};
use idem_tests::{Answer, Call, PostgresServer, Service, SqliteFile};
use reqwest::Method;

use self::handler::{Pool, Steps, routes};

/// Expands to each of the named `async fn(Scene)` as a test on both databases, on one thread, so that its log can be read.
macro_rules! on_both_databases {
    ($($test:ident)*) => {
        mod postgres {
            $(
                #[tokio::test]
                async fn $test() {
                    idem_tests::in_time(super::$test(super::super::Scene::postgres().await)).await;
                }
            )*
        }
        mod sqlite {
            $(
                #[tokio::test]
                async fn $test() {
                    idem_tests::in_time(super::$test(super::super::Scene::sqlite().await)).await;
                }
            )*
        }
    };
}
use on_both_databases;

/// Where the charges are.
pub(super) enum Database {
    Postgres(Arc<PostgresServer>, String),
    Sqlite(SqliteFile),
}

impl Database {
    pub(super) async fn postgres() -> Self {
        let server = PostgresServer::shared().await;
        let (_, schema) = server.backend().await;
        let database = Self::Postgres(server, schema);
        database.create().await;
        database
    }

    async fn create(&self) {
        let (ledger, accounts) = (self.table("ledger"), self.table("accounts"));
        self.execute(&format!("CREATE TABLE {accounts} (id int PRIMARY KEY)"))
            .await;
        self.execute(&format!(
            "CREATE TABLE {ledger} (entry text NOT NULL, account int REFERENCES {accounts} (id) DEFERRABLE INITIALLY DEFERRED)"
        ))
        .await;
    }

    pub(super) fn table(&self, name: &str) -> String {
        match self {
            Self::Postgres(_, schema) => format!("{schema}.{name}"),
            Self::Sqlite(_) => name.to_owned(),
        }
    }

    pub(super) async fn execute(&self, sql: &str) {
        match self {
            Self::Postgres(server, _) => server.execute(sql).await,
            Self::Sqlite(file) => drop(file.execute(sql).await),
        }
    }

    pub(super) async fn count(&self, of: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {of}");
        match self {
            Self::Postgres(server, _) => server.query(&sql).await,
            Self::Sqlite(file) => file.query(&sql).await,
        }
    }

    async fn steps(&self) -> Steps {
        let pool = match self {
            Self::Postgres(server, _) => Pool::Postgres(server.pool().await),
            Self::Sqlite(file) => Pool::Sqlite(file.pool().await),
        };
        Steps {
            pool,
            ledger: self.table("ledger"),
            reached: Arc::default(),
            go_on: Arc::default(),
            errors: Arc::default(),
        }
    }
}

/// A service with a ledger in the database of its records.
pub(super) struct Scene {
    database: Database,
    service: Service,
    steps: Steps,
}

impl Scene {
    async fn postgres() -> Self {
        Self::on(Database::postgres().await).await
    }

    async fn sqlite() -> Self {
        let database = Database::Sqlite(SqliteFile::create().await);
        database.create().await;
        Self::on(database).await
    }

    async fn on(database: Database) -> Self {
        let steps = database.steps().await;
        let service = match &database {
            Database::Postgres(server, schema) => {
                let backend = PostgresBackend::new(server.pool().await).with_schema(schema);
                Service::start(backend, routes(&steps), None).await
            }
            Database::Sqlite(file) => Service::start(file.backend().await, routes(&steps), None).await,
        };
        Self {
            database,
            service,
            steps,
        }
    }

    /// The same with records in a backend of another kind, or in one that is away.
    async fn with(database: Database, backend: impl Backend) -> Self {
        let steps = database.steps().await;
        let service = Service::start(backend, routes(&steps), None).await;
        Self {
            database,
            service,
            steps,
        }
    }

    fn call(&self, path: &str, told: &[(&str, &str)]) -> Call {
        let call = self.service.client.call(Method::POST, path).body("entry");
        told.iter()
            .fold(call, |call, (name, value)| call.header(name, value.as_bytes()))
    }

    /// Sends a charge under the key `k`.
    async fn send(&self, told: &[(&str, &str)]) -> Answer {
        self.call("/charges", told).key("k").send().await
    }

    /// How many rows and records there are.
    async fn counts(&self) -> (i64, i64) {
        let records = self.database.table("idem_records");
        (
            self.database.count(&self.steps.ledger).await,
            self.database.count(&records).await,
        )
    }
}

/// Checks that a failed attempt has left nothing, and that a retry is carried out.
async fn assert_released(scene: &Scene) {
    assert_eq!(scene.counts().await, (0, 0));
    let retry = scene.send(&[]).await;
    assert_eq!(retry.status, StatusCode::CREATED, "{retry:?}");
    assert!(!retry.is_replay(), "{retry:?}");
    assert_eq!(scene.counts().await, (1, 1));
}
