//! A real Redis Cluster of its own for a test.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{Cmd, FromRedisValue};

use crate::RedisServer;
use crate::redis_server::connect;

/// How many slots the primaries share.
const SLOTS: u16 = 16_384;

/// How many primaries share them.
pub(crate) const PRIMARIES: u16 = 3;

/// Three primaries, and one replica of each if the test wants to lose one.
#[derive(Debug)]
pub struct RedisCluster {
    primaries: Vec<Mutex<RedisServer>>,
    replicas: Vec<RedisServer>,
    urls: Vec<String>,
}

impl RedisCluster {
    /// Starts three primaries and waits until each of them takes writes.
    pub async fn start() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..PRIMARIES {
            nodes.push(start_node(&[]).await);
        }
        join(&nodes).await;
        Self::of(nodes, Vec::new())
    }

    /// The same, with a replica of each.
    pub async fn start_with_replicas() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..2 * PRIMARIES {
            nodes.push(start_node(&[]).await);
        }
        let replicas = join_with_replicas(&mut nodes).await;
        Self::of(nodes, replicas)
    }

    fn of(primaries: Vec<RedisServer>, replicas: Vec<RedisServer>) -> Self {
        let urls = primaries.iter().map(RedisServer::url).collect();
        let primaries = primaries.into_iter().map(Mutex::new).collect();
        Self {
            primaries,
            replicas,
            urls,
        }
    }

    /// The URL that leads to all of it.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.urls.iter().map(|url| host(url)).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The URLs of the primaries.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Which of the primaries has the slot of `key`.
    pub async fn owner(&self, key: &str) -> usize {
        let slot: u16 = query(&self.urls[0], &format!("CLUSTER KEYSLOT {key}")).await;
        let id = |url: &str| {
            let url = url.to_owned();
            async move { query::<String>(&url, "CLUSTER MYID").await }
        };
        let nodes: redis::Value = query(&self.urls[0], "CLUSTER SLOTS").await;
        let owner = owner_of(&nodes, slot);
        for (index, url) in self.urls.iter().enumerate() {
            if id(url).await == owner {
                return index;
            }
        }
        panic!("no primary has slot {slot}: {nodes:?}");
    }

    /// Sends a command to one of the primaries.
    pub async fn query<T: FromRedisValue>(&self, node: usize, command: &str) -> T {
        query(&self.urls[node], command).await
    }

    /// What `INFO` says on each of the primaries.
    pub async fn infos(&self) -> Vec<String> {
        let mut infos = Vec::new();
        for url in &self.urls {
            infos.push(query(url, "INFO").await);
        }
        infos
    }

    /// How many channels of shards somebody listens to, on each of the primaries.
    pub async fn channels(&self) -> Vec<usize> {
        let mut channels = Vec::new();
        for url in &self.urls {
            channels.push(query::<Vec<String>>(url, "PUBSUB SHARDCHANNELS").await.len());
        }
        channels
    }

    /// How many channels of shards somebody listens to, on all replicas. They hear what their primaries do.
    pub async fn channels_of_replicas(&self) -> usize {
        let mut channels = 0;
        for replica in &self.replicas {
            channels += ask::<Vec<String>>(replica, "PUBSUB SHARDCHANNELS").await.len();
        }
        channels
    }

    /// How many reads of single records the replicas have served.
    pub async fn reads_of_replicas(&self) -> u64 {
        let mut reads = 0;
        for replica in &self.replicas {
            for (command, calls) in replica.commands().await {
                reads += if ["get", "pttl"].contains(&command.as_str()) {
                    calls
                } else {
                    0
                };
            }
        }
        reads
    }

    /// Lets the slot of `key` be on its way from one primary to another: what is there stays, what is new goes to the
    /// other.
    pub async fn start_moving(&self, key: &str, from: usize, to: usize) {
        let slot: u16 = self.query(from, &format!("CLUSTER KEYSLOT {key}")).await;
        let (source, target): (String, String) = (
            self.query(from, "CLUSTER MYID").await,
            self.query(to, "CLUSTER MYID").await,
        );
        let _: () = self
            .query(to, &format!("CLUSTER SETSLOT {slot} IMPORTING {source}"))
            .await;
        let _: () = self
            .query(from, &format!("CLUSTER SETSLOT {slot} MIGRATING {target}"))
            .await;
    }

    /// Moves what the slot of `key` still has, and tells every primary whose it is now.
    pub async fn finish_moving(&self, key: &str, from: usize, to: usize) {
        let slot: u16 = self.query(from, &format!("CLUSTER KEYSLOT {key}")).await;
        let target: String = self.query(to, "CLUSTER MYID").await;
        let keys: Vec<String> = self.query(from, &format!("CLUSTER GETKEYSINSLOT {slot} 1000")).await;
        let (address, port) = host(&self.urls[to]).split_once(':').expect("a host and a port");
        for key in keys {
            let mut migrate = redis::cmd("MIGRATE");
            migrate.arg(address).arg(port).arg(&key).arg(0).arg(5000);
            let _: String = send(&self.urls[from], &migrate).await.expect("it moves");
        }
        // The new owner first, so that somebody always says that it is the owner.
        for node in [to, from]
            .into_iter()
            .chain((0..self.urls.len()).filter(|node| ![to, from].contains(node)))
        {
            let _: () = self.query(node, &format!("CLUSTER SETSLOT {slot} NODE {target}")).await;
        }
    }

    /// Waits until the replica of a primary has as much as the primary.
    pub async fn replicate(&self, primary: usize) {
        let url = self.urls[primary].clone();
        until("the replica has everything", async || {
            query::<i64>(&url, "WAIT 1 100").await >= 1
        })
        .await;
    }

    /// Stops a primary where it is, by SIGSTOP: its connections stay open, and nothing comes over them.
    pub fn freeze(&self, primary: usize) {
        self.primary(primary).freeze();
    }

    fn primary(&self, primary: usize) -> MutexGuard<'_, RedisServer> {
        self.primaries[primary].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills a primary with SIGKILL.
    pub fn kill(&self, primary: usize) {
        self.primary(primary).kill();
    }

    /// Lets a frozen primary go on.
    pub fn thaw(&self, primary: usize) {
        self.primary(primary).thaw();
    }

    /// Kills all primaries, and then starts them again with what they know of each other, once `meanwhile` is over.
    pub async fn restart_after(&mut self, meanwhile: impl AsyncFnOnce()) {
        for primary in &self.primaries {
            primary.lock().unwrap_or_else(PoisonError::into_inner).kill();
        }
        meanwhile().await;
        for primary in &mut self.primaries {
            primary
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner)
                .restart()
                .await;
        }
    }

    /// Waits until the replica of a primary that is lost has taken its place.
    pub async fn promote(&self, primary: usize) {
        until("the replica is the primary", async || {
            let info: String = ask(&self.replicas[primary], "INFO replication").await;
            info.contains("role:master")
        })
        .await;
    }
}

/// A node that belongs to nobody yet. It is quick to call another one lost, and keeps serving its own slots then.
pub(crate) async fn start_node(arguments: &[&str]) -> RedisServer {
    let settings = "--cluster-enabled yes --cluster-node-timeout 1000 --cluster-require-full-coverage no \
                    --repl-diskless-sync-delay 0 --repl-ping-replica-period 1";
    RedisServer::start_on_ports(|bus| {
        let settings = format!("{settings} --cluster-port {bus}");
        let settings = settings.split(' ').chain(arguments.iter().copied());
        settings.map(str::to_owned).collect()
    })
    .await
}

/// Gives the first of `nodes` their slots, lets all meet, and waits until all agree.
async fn join(nodes: &[RedisServer]) {
    for (index, node) in (0..PRIMARIES).zip(nodes) {
        let Range { start, end } = slots_of(index);
        let _: () = ask(node, &format!("CLUSTER ADDSLOTSRANGE {start} {}", end - 1)).await;
        let _: () = ask(node, &format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1)).await;
    }
    for node in &nodes[1..] {
        let address = node.address();
        let bus: String = ask::<Vec<String>>(node, "CONFIG GET cluster-port").await.remove(1);
        let (ip, port) = (address.ip(), address.port());
        let _: () = ask(&nodes[0], &format!("CLUSTER MEET {ip} {port} {bus}")).await;
    }
    for node in nodes {
        until("the nodes agree", async || {
            let info: String = ask(node, "CLUSTER INFO").await;
            info.contains("cluster_state:ok")
                && info.contains("cluster_slots_assigned:16384")
                && info.contains(&format!("cluster_known_nodes:{}", nodes.len()))
        })
        .await;
    }
}

/// Lets all of `nodes` be a cluster whose latter half are replicas of the first, one each, and takes the replicas out.
pub(crate) async fn join_with_replicas(nodes: &mut Vec<RedisServer>) -> Vec<RedisServer> {
    join(nodes).await;
    let replicas = nodes.split_off(usize::from(PRIMARIES));
    for (primary, replica) in nodes.iter().zip(&replicas) {
        let id: String = ask(primary, "CLUSTER MYID").await;
        let replicate = format!("CLUSTER REPLICATE {id}");
        // Refused until gossip has told the one of the other.
        until("a replica follows its primary", async || {
            try_ask::<String>(replica, &replicate).await.is_some()
        })
        .await;
    }
    for replica in &replicas {
        until("a replica is in step", async || {
            let info: String = ask(replica, "INFO replication").await;
            info.contains("master_link_status:up")
        })
        .await;
    }
    for node in nodes.iter().chain(&replicas) {
        // A replica is told of only once it has said how far it is.
        until("everybody knows the replicas", async || {
            let slots: redis::Value = ask(node, "CLUSTER SLOTS").await;
            let ranges = slots.as_sequence().expect("a list");
            ranges
                .iter()
                .all(|range| range.as_sequence().is_some_and(|range| range.len() == 4))
        })
        .await;
    }
    replicas
}

fn host(url: &str) -> &str {
    url.trim_start_matches("redis://").trim_end_matches('/')
}

/// The id of the primary of `slot` in an answer to `CLUSTER SLOTS`.
fn owner_of(slots: &redis::Value, slot: u16) -> String {
    type Node = (String, u16, String);
    let ranges = slots.as_sequence().expect("a list");
    for range in ranges {
        let range = range.as_sequence().expect("a list");
        let bound = |index: usize| u16::from_redis_value(range[index].clone()).expect("a slot");
        if (bound(0)..=bound(1)).contains(&slot) {
            let node = range[2].as_sequence().expect("a node")[..3].to_vec();
            return Node::from_redis_value(redis::Value::Array(node)).expect("a node").2;
        }
    }
    panic!("nobody has slot {slot}");
}

/// The slots that [`join`] gives to one of the primaries.
fn slots_of(primary: u16) -> Range<u16> {
    primary * SLOTS / PRIMARIES..(primary + 1) * SLOTS / PRIMARIES
}

/// The primary that [`join`] gives a slot to.
pub(crate) fn first_owner(slot: u16) -> usize {
    let owner = (0..PRIMARIES).find(|&index| slots_of(index).contains(&slot));
    owner.map(usize::from).expect("a slot below 16384")
}

pub(crate) async fn ask<T: FromRedisValue>(node: &RedisServer, command: &str) -> T {
    query(&node.url(), command).await
}

async fn try_ask<T: FromRedisValue>(node: &RedisServer, command: &str) -> Option<T> {
    send(&node.url(), &of(command)).await.ok()
}

/// Sends a command to the node at `url`; its words are separated by blanks.
async fn query<T: FromRedisValue>(url: &str, command: &str) -> T {
    let answer = send(url, &of(command)).await;
    answer.unwrap_or_else(|error| panic!("{command}: {error}"))
}

fn of(command: &str) -> Cmd {
    let mut words = command.split(' ');
    let mut command = redis::cmd(words.next().unwrap_or_default());
    command.arg(words.collect::<Vec<_>>());
    command
}

async fn send<T: FromRedisValue>(url: &str, command: &Cmd) -> redis::RedisResult<T> {
    command.query_async(&mut connect(url).await?).await
}

/// Waits until `holds` does.
pub async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < patience, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
