//! A real primary, its replica, and the sentinels that watch them.

use std::fs;
use std::process::{Child, Stdio};

use tempfile::TempDir;

use crate::RedisServer;
use crate::process::signal;
use crate::redis_cluster::until;
use crate::redis_server::{answers, free_port, redis_server};

/// What the sentinels call the primary.
const NAME: &str = "orders";

/// Two servers and three sentinels, two of which have to agree that the primary is lost.
#[derive(Debug)]
pub struct Sentinels {
    /// The primary at first.
    pub primary: RedisServer,
    /// The replica, which becomes the primary when that is lost.
    pub replica: RedisServer,
    watchers: Vec<Sentinel>,
}

#[derive(Debug)]
struct Sentinel {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Sentinels {
    /// Starts all of them and waits until each sentinel knows of the others and of the replica.
    pub async fn start() -> Self {
        let primary = RedisServer::start().await;
        let port = primary.address().port().to_string();
        let follow = ["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
        let replica = RedisServer::start_with(&follow).await;
        until("the replica is in step", async || {
            let info: String = info(&replica.url(), "replication").await.unwrap_or_default();
            info.contains("master_link_status:up")
        })
        .await;
        let mut watchers = Vec::new();
        for _ in 0..3 {
            watchers.push(Sentinel::start(&port).await);
        }
        for sentinel in &watchers {
            until("the sentinels know each other", async || {
                let info = info(&sentinel.url(), "sentinel").await.unwrap_or_default();
                info.contains("slaves=1,sentinels=3")
            })
            .await;
        }
        Self {
            primary,
            replica,
            watchers,
        }
    }

    /// The URL that leads to whichever server is the primary.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self
            .watchers
            .iter()
            .map(|it| format!("127.0.0.1:{}", it.port))
            .collect();
        format!("redis+sentinel://{}/{NAME}", hosts.join(","))
    }

    /// Stops the sentinel that a client asks first where it is, by SIGSTOP: it takes connections and says nothing.
    pub fn freeze_the_first(&self) {
        signal(self.watchers[0].child.id(), "-STOP");
    }

    /// Gives a command, of words without spaces in them, to all sentinels, and ends all connections to them.
    pub async fn tell(&self, password: Option<&str>, command: &str) {
        for sentinel in &self.watchers {
            let url = match password {
                Some(password) => sentinel.url().replace("//", &format!("//:{password}@")),
                None => sentinel.url(),
            };
            let client = redis::Client::open(url).expect("a valid URL");
            let mut connection = client.get_multiplexed_async_connection().await.expect("it answers");
            for command in [command, "CLIENT KILL TYPE normal SKIPME yes"] {
                let mut words = command.split(' ');
                let mut told = redis::cmd(words.next().unwrap_or_default());
                told.arg(words.collect::<Vec<_>>());
                told.exec_async(&mut connection)
                    .await
                    .unwrap_or_else(|error| panic!("{command}: {error}"));
            }
        }
    }

    /// Waits until the replica has as much as the primary.
    pub async fn replicate(&self) {
        until("the replica has everything", async || {
            let wait = redis::cmd("WAIT").arg(1).arg(100).to_owned();
            let replicas: i64 = wait
                .query_async(&mut self.primary.connection().await)
                .await
                .unwrap_or(0);
            replicas >= 1
        })
        .await;
    }

    /// Kills the primary with SIGKILL and waits until the sentinels have put the replica in its place.
    pub async fn fail_over(&mut self) {
        self.primary.kill();
        let replica = self.replica.url();
        until("the replica is the primary", async || {
            info(&replica, "replication")
                .await
                .is_some_and(|info| info.contains("role:master"))
        })
        .await;
    }
}

impl Sentinel {
    async fn start(primary: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("sentinel.conf");
        loop {
            let port = free_port();
            let settings = format!(
                "bind 127.0.0.1\nport {port}\ndir {}\nsentinel monitor {NAME} 127.0.0.1 {primary} 2\nsentinel \
                 down-after-milliseconds {NAME} 500\nsentinel failover-timeout {NAME} 3000\n",
                folder.path().display()
            );
            fs::write(&path, settings).expect("the folder is ours");
            let mut child = redis_server()
                .arg(&path)
                .arg("--sentinel")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .expect("redis-server starts; `cargo xtask setup` installs it");
            // It ends by itself where somebody else was faster to take the port.
            if answers(&mut child, port).await {
                return Self {
                    child,
                    port,
                    _folder: folder,
                };
            }
        }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // It is gone either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn info(url: &str, section: &str) -> Option<String> {
    let client = redis::Client::open(url).ok()?;
    let mut connection = client.get_multiplexed_async_connection().await.ok()?;
    redis::cmd("INFO").arg(section).query_async(&mut connection).await.ok()
}
