//! The server that the fleet keeps its records on, of each kind.
//!
//! Owns what every server can be done to. What only one kind can be done to is in `faults`.

use std::slice;
use std::time::Duration;

use idem_core::{IdempotencyKey, RecordKey, Scope};
use tokio::time::sleep;

use super::cluster::Cluster;
use super::ledger;
use super::plan::Key;
use super::sqlite::Sqlite;
use crate::{PostgresServer, Proxy, RedisServer, SteppedClock};

/// What a round keeps its records on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// A Redis server that has everything on disk before it answers.
    #[default]
    Redis,
    /// Three such servers that share the keys, with a replica each.
    Cluster,
    /// A Postgres server whose commits survive its death.
    Postgres,
    /// A file that all processes have open.
    Sqlite,
}

impl Backend {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Redis, Self::Cluster, Self::Postgres, Self::Sqlite];

    /// As tables call its server.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "Redis",
            Self::Cluster => "cluster",
            Self::Postgres => "Postgres",
            Self::Sqlite => "SQLite",
        }
    }
}

/// A running server, and the proxies before it; it is killed when this is dropped.
#[derive(Debug)]
pub(super) enum Server {
    Redis(RedisServer, Proxy),
    Cluster(Cluster),
    Postgres(PostgresServer, Proxy),
    Sqlite(Sqlite),
}

impl Server {
    pub(super) async fn start(backend: Backend) -> Self {
        match backend {
            Backend::Redis => {
                let redis = RedisServer::start_durable().await;
                let proxy = Proxy::start(redis.address()).await;
                Self::Redis(redis, proxy)
            }
            Backend::Cluster => Self::Cluster(Cluster::start().await),
            Backend::Postgres => {
                let postgres = PostgresServer::start().await;
                ledger::make(&postgres).await;
                let proxy = Proxy::start(postgres.address()).await;
                Self::Postgres(postgres, proxy)
            }
            Backend::Sqlite => Self::Sqlite(Sqlite::start().await),
        }
    }

    pub(super) fn backend(&self) -> Backend {
        match self {
            Self::Redis(..) => Backend::Redis,
            Self::Cluster(_) => Backend::Cluster,
            Self::Postgres(..) => Backend::Postgres,
            Self::Sqlite(_) => Backend::Sqlite,
        }
    }

    pub(super) fn proxies(&self) -> &[Proxy] {
        match self {
            Self::Redis(_, proxy) | Self::Postgres(_, proxy) => slice::from_ref(proxy),
            Self::Cluster(cluster) => cluster.proxies(),
            Self::Sqlite(_) => &[],
        }
    }

    /// How the process at a place reaches it. The first one reaches a single server without the proxy, so that not all are
    /// cut off at once; a cluster names its proxies to everybody.
    pub(super) fn url(&self, place: usize) -> String {
        let (direct, address, proxy) = match self {
            Self::Cluster(cluster) => return cluster.url(),
            Self::Sqlite(sqlite) => return sqlite.file.url(),
            Self::Redis(redis, proxy) => (redis.url(), redis.address(), proxy),
            Self::Postgres(postgres, proxy) => (postgres.url(), postgres.address(), proxy),
        };
        match place {
            0 => direct,
            _ => direct.replace(&address.to_string(), &proxy.address.to_string()),
        }
    }

    /// The time of day that the process at a place goes by, if it is not the right one.
    pub(super) fn clock(&self, place: usize) -> Option<&SteppedClock> {
        match self {
            Self::Sqlite(sqlite) => sqlite.clocks.get(place),
            Self::Redis(..) | Self::Cluster(_) | Self::Postgres(..) => None,
        }
    }

    /// Of each key, which node has its record: always the first of a single server.
    pub(super) async fn owners(&self, keys: &[Key]) -> Vec<usize> {
        let Self::Cluster(cluster) = self else {
            return vec![0; keys.len()];
        };
        let mut owners = Vec::new();
        for key in keys {
            let (operation, name) = (format!("POST {}", key.route.path()), IdempotencyKey::of(&key.name));
            let record = RecordKey::new(&operation, &Scope::global(), &name).expect("a valid key");
            owners.push(cluster.owner(record.as_str()).await);
        }
        owners
    }

    /// Stops it where it is for so long.
    pub(super) async fn freeze(&self, length: Duration) {
        match self {
            Self::Redis(redis, _) => {
                redis.freeze();
                sleep(length).await;
                redis.thaw();
            }
            Self::Postgres(postgres, _) => {
                postgres.freeze();
                sleep(length).await;
                postgres.thaw();
            }
            Self::Cluster(_) => panic!("a cluster is frozen node by node"),
            Self::Sqlite(_) => panic!("a file has no server"),
        }
    }

    /// Kills it, and starts it again so much later with what it had.
    pub(super) async fn restart(&mut self, length: Duration) {
        match self {
            Self::Redis(redis, _) => {
                redis.kill();
                sleep(length).await;
                redis.restart().await;
            }
            Self::Postgres(postgres, _) => {
                postgres.kill();
                sleep(length).await;
                postgres.restart().await;
            }
            Self::Cluster(_) => panic!("a cluster is restarted node by node"),
            Self::Sqlite(_) => panic!("a file has no server"),
        }
    }

    /// Lets it close the connections that it has.
    pub(super) async fn kill_clients(&self) {
        const SUBSCRIBERS: &str = "CLIENT KILL TYPE pubsub";
        const OTHERS: &str = "CLIENT KILL TYPE normal SKIPME yes";
        match self {
            Self::Redis(redis, _) => {
                redis.tell(SUBSCRIBERS).await;
                redis.tell(OTHERS).await;
            }
            Self::Cluster(cluster) => {
                cluster.tell(SUBSCRIBERS).await;
                cluster.tell(OTHERS).await;
            }
            Self::Postgres(postgres, _) => postgres.kill_clients().await,
            Self::Sqlite(_) => panic!("a file has no server"),
        }
    }

    /// Lets it forget every record.
    pub(super) async fn forget(&self) {
        match self {
            Self::Redis(redis, _) => redis.tell("FLUSHALL").await,
            Self::Cluster(cluster) => cluster.tell("FLUSHALL").await,
            Self::Postgres(postgres, _) => postgres.execute("TRUNCATE idem_records CASCADE").await,
            Self::Sqlite(sqlite) => {
                sqlite.file.execute("DELETE FROM idem_records").await;
            }
        }
    }

    /// What handlers have committed in transactions.
    pub(super) async fn ledger(&self) -> Vec<ledger::Row> {
        match self {
            Self::Redis(..) | Self::Cluster(_) => Vec::new(),
            Self::Postgres(postgres, _) => ledger::read(postgres).await,
            Self::Sqlite(sqlite) => ledger::read_file(&sqlite.file).await,
        }
    }
}
