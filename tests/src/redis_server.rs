//! A real `redis-server` of its own for a test.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A child process on a Unix socket in a temporary folder, without persistence.
#[derive(Debug)]
pub struct RedisServer {
    child: Child,
    folder: TempDir,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(folder.path().join("redis.sock"))
            .arg("--dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts; `cargo xtask setup` installs it");
        let server = Self { child, folder };
        server.wait_until_ready().await;
        server
    }

    async fn wait_until_ready(&self) {
        let patience = Instant::now() + Duration::from_secs(30);
        let client = redis::Client::open(self.url()).expect("a valid URL");
        while client.get_multiplexed_async_connection().await.is_err() {
            assert!(Instant::now() < patience, "redis-server does not answer");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// A connection beside the one under test.
    pub async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("a valid URL");
        client
            .get_multiplexed_async_connection()
            .await
            .expect("the server answers")
    }

    /// How often each command was called since the last [`reset`](Self::reset), by `INFO commandstats`. Commands that
    /// a script calls count as well.
    pub async fn commands(&self) -> Vec<(String, u64)> {
        let info: String = redis::cmd("INFO")
            .arg("commandstats")
            .query_async(&mut self.connection().await)
            .await
            .expect("INFO is allowed");
        let calls = |line: &str| {
            let (name, stats) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            let calls = stats.strip_prefix("calls=")?.split_once(',')?.0.parse().ok()?;
            Some((name.to_owned(), calls))
        };
        let own = |name: &str| name.starts_with("client|") || ["info", "hello", "config|resetstat"].contains(&name);
        let mut commands: Vec<_> = info.lines().filter_map(calls).filter(|(name, _)| !own(name)).collect();
        commands.sort();
        commands
    }

    /// Forgets what was counted.
    pub async fn reset(&self) {
        let mut connection = self.connection().await;
        redis::cmd("CONFIG")
            .arg("RESETSTAT")
            .exec_async(&mut connection)
            .await
            .expect("CONFIG is allowed");
    }

    /// Kills the server with SIGKILL.
    pub fn kill(&mut self) {
        // It is gone either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
