//! The servers of a payment, and the service as processes on them.

use std::path::PathBuf;
use std::sync::Arc;

use idem_tests::{PostgresServer, RedisServer, Tripwire};
use tempfile::TempDir;

use crate::provider::Provider;
use crate::service::Service;

/// Where the ledger and the records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    Postgres,
    Sqlite,
    /// The records are in Redis, and the ledger is in Postgres.
    Redis,
}

/// The servers of one kind of storage.
pub(crate) struct Scene {
    pub(crate) provider: Provider,
    postgres: Option<PostgresServer>,
    redis: Option<RedisServer>,
    file: PathBuf,
    _folder: TempDir,
}

impl Scene {
    pub(crate) async fn set(storage: Storage) -> Arc<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let postgres = match storage {
            Storage::Sqlite => None,
            Storage::Postgres | Storage::Redis => Some(PostgresServer::start().await),
        };
        let redis = match storage {
            Storage::Redis => Some(RedisServer::start().await),
            Storage::Postgres | Storage::Sqlite => None,
        };
        Arc::new(Self {
            provider: Provider::start().await,
            postgres,
            redis,
            file: folder.path().join("payments.db"),
            _folder: folder,
        })
    }

    /// Starts the service. Its messages to servers go through the `tripwire`, if there is one.
    pub(crate) async fn start(&self, tripwire: Option<&Tripwire>) -> Service {
        let mut variables = vec![("PROVIDER_URL", {
            let url = self.provider.url();
            behind(
                url,
                self.provider.address().to_string(),
                self.provider.address(),
                tripwire,
            )
            .await
        })];
        match &self.postgres {
            Some(postgres) => {
                let (url, address) = (postgres.url().clone(), postgres.address());
                variables.push((
                    "DATABASE_URL",
                    behind(url, address.to_string(), address, tripwire).await,
                ));
            }
            None => variables.push(("DATABASE_URL", format!("sqlite:{}", self.file.display()))),
        }
        if let Some(redis) = &self.redis {
            let (url, address) = (redis.url(), redis.address());
            variables.push(("REDIS_URL", behind(url, address.to_string(), address, tripwire).await));
        }
        Service::start(variables).await
    }

    /// A number from the ledger.
    pub(crate) async fn query(&self, sql: &str) -> i64 {
        if let Some(postgres) = &self.postgres {
            return postgres.query(sql).await;
        }
        let mut connection = connect(&self.file).await;
        let number = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned()));
        number.fetch_one(&mut connection).await.expect("the tables are there")
    }
}

async fn connect(file: &std::path::Path) -> sqlx::SqliteConnection {
    use sqlx::ConnectOptions as _;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    options.connect().await.expect("the file is there")
}

/// The URL of a server, by way of the tripwire.
async fn behind(url: String, address: String, server: std::net::SocketAddr, tripwire: Option<&Tripwire>) -> String {
    match tripwire {
        Some(tripwire) => url.replace(&address, &tripwire.before(server).await.to_string()),
        None => url,
    }
}
