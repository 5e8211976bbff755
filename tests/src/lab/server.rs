//! The server that the fleet keeps its records on, of either kind.
//!
//! Owns what every server can be done to. What only one kind can be done to is in `faults`.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::sleep;

use crate::{PostgresServer, Proxy, RedisServer};

/// What a round keeps its records on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// A Redis server that has everything on disk before it answers.
    #[default]
    Redis,
    /// A Postgres server whose commits survive its death.
    Postgres,
}

impl Backend {
    /// As tables call its server.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "Redis",
            Self::Postgres => "Postgres",
        }
    }
}

/// A running server; it is killed when this is dropped.
#[derive(Debug)]
pub(super) enum Server {
    Redis(RedisServer),
    Postgres(PostgresServer),
}

impl Server {
    pub(super) async fn start(backend: Backend) -> Self {
        match backend {
            Backend::Redis => Self::Redis(RedisServer::start_durable().await),
            Backend::Postgres => Self::Postgres(PostgresServer::start().await),
        }
    }

    pub(super) fn backend(&self) -> Backend {
        match self {
            Self::Redis(_) => Backend::Redis,
            Self::Postgres(_) => Backend::Postgres,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Redis(redis) => redis.address(),
            Self::Postgres(postgres) => postgres.address(),
        }
    }

    pub(super) fn url(&self) -> String {
        match self {
            Self::Redis(redis) => redis.url(),
            Self::Postgres(postgres) => postgres.url(),
        }
    }

    /// The same server by way of a proxy.
    pub(super) fn url_behind(&self, proxy: &Proxy) -> String {
        let (direct, behind) = (self.address().to_string(), proxy.address.to_string());
        self.url().replace(&direct, &behind)
    }

    /// Stops it where it is for so long.
    pub(super) async fn freeze(&self, length: Duration) {
        match self {
            Self::Redis(redis) => redis.freeze(),
            Self::Postgres(postgres) => postgres.freeze(),
        }
        sleep(length).await;
        match self {
            Self::Redis(redis) => redis.thaw(),
            Self::Postgres(postgres) => postgres.thaw(),
        }
    }

    /// Kills it, and starts it again so much later with what it had.
    pub(super) async fn restart(&mut self, length: Duration) {
        match self {
            Self::Redis(redis) => redis.kill(),
            Self::Postgres(postgres) => postgres.kill(),
        }
        sleep(length).await;
        match self {
            Self::Redis(redis) => redis.restart().await,
            Self::Postgres(postgres) => postgres.restart().await,
        }
    }

    /// Lets it close the connections that it has.
    pub(super) async fn kill_clients(&self) {
        match self {
            Self::Redis(redis) => {
                redis.kill_subscribers().await;
                redis.tell("CLIENT KILL TYPE normal SKIPME yes").await;
            }
            Self::Postgres(postgres) => postgres.kill_clients().await,
        }
    }

    /// Lets it forget every record.
    pub(super) async fn forget(&self) {
        match self {
            Self::Redis(redis) => redis.tell("FLUSHALL").await,
            Self::Postgres(postgres) => postgres.execute("TRUNCATE idem_records").await,
        }
    }
}
