//! What the attack costs: memory of the process, connections and memory of the server.
//!
//! Owns the servers that are besieged, and which of their figures are looked at. They keep nothing on disk that they need not:
//! how fast a disk is does not matter here.

use std::fs;

use crate::lab::server::Backend;
use crate::{PostgresServer, RedisCluster, RedisServer};

/// A server behind the process that is attacked; it is killed when this is dropped.
#[derive(Debug)]
pub(super) enum Besieged {
    Redis(RedisServer),
    Cluster(RedisCluster),
    Postgres(PostgresServer),
}

/// The highest figures that were seen.
#[derive(Debug, Default)]
pub(super) struct Costs {
    /// Bytes of memory of the process.
    pub(super) memory: u64,
    /// Connections to the server, to its fullest node.
    pub(super) connections: u64,
    /// Bytes of memory of the server, where it says; of its fullest node.
    pub(super) server_memory: Option<u64>,
}

impl Besieged {
    pub(super) async fn start(backend: Backend) -> Self {
        match backend {
            Backend::Redis => Self::Redis(RedisServer::start().await),
            Backend::Cluster => Self::Cluster(RedisCluster::start().await),
            Backend::Postgres => Self::Postgres(PostgresServer::start().await),
            Backend::Sqlite => panic!("a file has no server to besiege"),
        }
    }

    pub(super) fn url(&self) -> String {
        match self {
            Self::Redis(redis) => redis.url(),
            Self::Cluster(cluster) => cluster.url(),
            Self::Postgres(postgres) => postgres.url(),
        }
    }

    /// How many connections there are to it, or to its fullest node. The one that asks is among them.
    pub(super) async fn connections(&self) -> u64 {
        match self {
            Self::Postgres(postgres) => {
                let count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
                let count: i64 = postgres.query(count).await;
                count.unsigned_abs()
            }
            _ => self.most("connected_clients").await,
        }
    }

    async fn memory(&self) -> Option<u64> {
        match self {
            Self::Postgres(_) => None,
            _ => Some(self.most("used_memory_peak").await),
        }
    }

    /// A figure of `INFO`, of the node where it is highest.
    async fn most(&self, name: &str) -> u64 {
        let texts = match self {
            Self::Redis(redis) => vec![redis.info().await],
            Self::Cluster(cluster) => cluster.infos().await,
            Self::Postgres(_) => Vec::new(),
        };
        let figure = |text: &String| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            let (_, value) = lines.find(|(known, _)| *known == name)?;
            value.trim().parse().ok()
        };
        texts.iter().filter_map(figure).max().unwrap_or_default()
    }
}

impl Costs {
    /// Looks once.
    pub(super) async fn look(&mut self, process: u32, besieged: &Besieged) {
        self.memory = self.memory.max(memory(process).unwrap_or_default());
        self.connections = self.connections.max(besieged.connections().await);
        self.server_memory = self.server_memory.max(besieged.memory().await);
    }
}

/// How many bytes of memory a process has in use, where the system says.
pub(in crate::lab) fn memory(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
