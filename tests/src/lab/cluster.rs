//! A Redis Cluster that has everything on disk, with a proxy before each node.
//!
//! Owns what can be done to one of its nodes. Each node announces the address of its proxy, so that clients come through it.
//! A node is called lost only after a minute: the lab decides when a replica takes the place of its primary.

use std::mem;
use std::time::Duration;

use tokio::time::sleep;

use crate::redis_cluster::{PRIMARIES, ask, first_owner, join_with_replicas, start_node};
use crate::{Proxy, RedisServer, until};

/// How long a primary that was restarted refuses everything, so that the others can tell it what has changed.
pub(super) const REJOIN: Duration = Duration::from_secs(2);

/// Three primaries with a replica each. They are killed when this is dropped.
#[derive(Debug)]
pub(super) struct Cluster {
    primaries: Vec<RedisServer>,
    replicas: Vec<RedisServer>,
    proxies: Vec<Proxy>,
}

impl Cluster {
    pub(super) async fn start() -> Self {
        let (mut nodes, mut proxies) = (Vec::new(), Vec::new());
        for _ in 0..2 * PRIMARIES {
            let mut node = start_node(&RedisServer::DURABLE).await;
            let proxy = Proxy::start(node.address()).await;
            let port = proxy.address.port().to_string();
            node.set_for_good("cluster-announce-port", &port).await;
            nodes.push(node);
            proxies.push(proxy);
        }
        let mut replicas = join_with_replicas(&mut nodes).await;
        for node in nodes.iter().chain(&replicas) {
            until("only proxies are announced", async || {
                let known: String = ask(node, "CLUSTER NODES").await;
                let is_proxied = |line: &str| {
                    proxies
                        .iter()
                        .any(|proxy| line.contains(&format!(":{}@", proxy.address.port())))
                };
                known.lines().all(is_proxied)
            })
            .await;
        }
        for node in nodes.iter_mut().chain(&mut replicas) {
            node.set_for_good("cluster-node-timeout", "60000").await;
        }
        Self {
            primaries: nodes,
            replicas,
            proxies,
        }
    }

    /// The URL that leads to all of it, by way of the proxies.
    pub(super) fn url(&self) -> String {
        let hosts: Vec<_> = self.proxies.iter().map(|proxy| proxy.address.to_string()).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    pub(super) fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// Which of the primaries, or the one that has taken its place, has the slot of a key.
    pub(super) async fn owner(&self, key: &str) -> usize {
        first_owner(ask(&self.primaries[0], &format!("CLUSTER KEYSLOT {key}")).await)
    }

    /// Gives each primary a command.
    pub(super) async fn tell(&self, command: &str) {
        for primary in &self.primaries {
            primary.tell(command).await;
        }
    }

    /// Stops a primary where it is for so long.
    pub(super) async fn silence(&self, node: usize, length: Duration) {
        self.primaries[node].freeze();
        sleep(length).await;
        self.primaries[node].thaw();
    }

    /// Leaves a primary no room for anything new for so long.
    pub(super) async fn fill(&self, node: usize, length: Duration) {
        self.primaries[node].set("maxmemory", "1").await;
        sleep(length).await;
        self.primaries[node].set("maxmemory", "0").await;
    }

    /// Kills a primary, and starts it again so much later with what it had, or with nothing.
    pub(super) async fn restart(&mut self, node: usize, length: Duration, keeps: bool) {
        let primary = &mut self.primaries[node];
        if keeps {
            primary.kill();
        } else {
            primary.kill_and_forget();
        }
        sleep(length).await;
        primary.restart().await;
        until("the primary is back", async || {
            ask::<String>(primary, "CLUSTER INFO")
                .await
                .contains("cluster_state:ok")
        })
        .await;
    }

    /// Kills a primary, lets its replica take its place so much later, and starts it again as the replica.
    pub(super) async fn fail_over(&mut self, node: usize, length: Duration) {
        let (primary, replica) = (&mut self.primaries[node], &mut self.replicas[node]);
        primary.kill();
        sleep(length).await;
        replica.tell("CLUSTER FAILOVER TAKEOVER").await;
        until("the replica is the primary", async || {
            ask::<String>(replica, "INFO replication").await.contains("role:master")
        })
        .await;
        primary.restart().await;
        until("the old primary is the replica", async || {
            let info: String = ask(primary, "INFO replication").await;
            info.contains("role:slave") && info.contains("master_link_status:up")
        })
        .await;
        mem::swap(primary, replica);
    }
}
