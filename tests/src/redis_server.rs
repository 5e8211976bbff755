//! A real `redis-server` of its own for a test.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisResult};
use tempfile::TempDir;

use crate::process::signal;
use crate::until;

/// A child process on a free loopback port, in a temporary folder.
#[derive(Debug)]
pub struct RedisServer {
    child: Child,
    port: u16,
    folder: TempDir,
    arguments: Vec<String>,
}

impl RedisServer {
    /// The arguments of a server that has everything on disk before it answers.
    pub(crate) const DURABLE: [&str; 6] = [
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--appenddirname",
        APPEND_ONLY,
    ];

    /// Starts a server that keeps nothing on disk, and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server that has everything on disk before it answers, and waits until it does.
    pub async fn start_durable() -> Self {
        Self::start_with(&Self::DURABLE).await
    }

    /// Starts a server with `arguments` for `redis-server`, which come last and so win over the usual ones.
    pub async fn start_with(arguments: &[&str]) -> Self {
        Self::start_on_ports(|_| arguments.iter().map(|&argument| argument.to_owned()).collect()).await
    }

    /// The same with arguments that name one more free port, another one each time it turns out to be taken.
    pub async fn start_on_ports(arguments: impl Fn(u16) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        loop {
            let (port, arguments) = (free_port(), arguments(free_port()));
            let mut child = spawn(port, &folder, &arguments);
            // It ends by itself where somebody else was faster to take a port.
            if answers(&mut child, port).await {
                return Self {
                    child,
                    port,
                    folder,
                    arguments,
                };
            }
        }
    }

    /// Kills the server and starts it again on the same port, with what it has on disk, and waits until it answers.
    pub async fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.port, &self.folder, &self.arguments);
        assert!(
            answers(&mut self.child, self.port).await,
            "the port was taken meanwhile"
        );
    }

    /// Kills the server and removes what it has on disk.
    pub fn kill_and_forget(&mut self) {
        self.kill();
        fs::remove_dir_all(self.folder.path().join(APPEND_ONLY)).expect("it is durable, and its files are ours");
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// The address behind the URL.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Where it has its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Stops the server's process where it is, by SIGSTOP; [`thaw`](Self::thaw) lets it go on.
    pub fn freeze(&self) {
        signal(self.child.id(), "-STOP");
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        signal(self.child.id(), "-CONT");
    }

    /// A connection beside the one under test.
    pub async fn connection(&self) -> MultiplexedConnection {
        connect(&self.url()).await.expect("the server answers")
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
        let own = |name: &str| {
            name.starts_with("client|") || ["info", "hello", "config|resetstat", "pubsub|channels"].contains(&name)
        };
        let mut commands: Vec<_> = info.lines().filter_map(calls).filter(|(name, _)| !own(name)).collect();
        commands.sort();
        commands
    }

    /// Waits until a command was called so many times since the last [`reset`](Self::reset).
    pub async fn wait_for_calls(&self, command: &str, calls: u64) {
        let patience = Instant::now() + Duration::from_secs(30);
        loop {
            let commands = self.commands().await;
            if commands
                .iter()
                .any(|(name, called)| name == command && *called >= calls)
            {
                return;
            }
            assert!(
                Instant::now() < patience,
                "{command} was not called {calls} times: {commands:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until there are so many keys.
    pub async fn wait_for_keys(&self, count: u64) {
        until("there are the keys", async || {
            let keys: u64 = redis::cmd("DBSIZE")
                .query_async(&mut self.connection().await)
                .await
                .expect("DBSIZE is allowed");
            keys == count
        })
        .await;
    }

    /// On how many records' channels somebody waits. Sentinels listen to a channel of their own.
    pub async fn channels(&self) -> usize {
        let mut pubsub = redis::cmd("PUBSUB");
        let channels: Vec<String> = pubsub
            .arg("CHANNELS")
            .arg("*:c")
            .query_async(&mut self.connection().await)
            .await
            .expect("PUBSUB is allowed");
        channels.len()
    }

    /// What `INFO` says.
    pub async fn info(&self) -> String {
        let info = redis::cmd("INFO");
        let text = info.query_async(&mut self.connection().await).await;
        text.expect("INFO is allowed")
    }

    /// How many keys there are.
    pub async fn records(&self) -> usize {
        redis::cmd("DBSIZE")
            .query_async(&mut self.connection().await)
            .await
            .expect("DBSIZE is allowed")
    }

    /// Closes every connection that listens to a channel.
    pub async fn kill_subscribers(&self) {
        self.tell("CLIENT KILL TYPE pubsub").await;
    }

    /// Forgets what was counted.
    pub async fn reset(&self) {
        self.tell("CONFIG RESETSTAT").await;
    }

    /// Changes a setting.
    pub async fn set(&self, setting: &str, value: &str) {
        self.tell(&format!("CONFIG SET {setting} {value}")).await;
    }

    /// Changes a setting for good: the server has it after a restart too.
    pub async fn set_for_good(&mut self, setting: &str, value: &str) {
        self.set(setting, value).await;
        self.arguments.extend([format!("--{setting}"), value.to_owned()]);
    }

    /// Gives a command, of words without spaces in them, whose answer does not matter.
    pub async fn tell(&self, command: &str) {
        let mut words = command.split(' ');
        let mut told = redis::cmd(words.next().unwrap_or_default());
        told.arg(words.collect::<Vec<_>>());
        told.exec_async(&mut self.connection().await)
            .await
            .unwrap_or_else(|error| panic!("{command}: {error}"));
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

/// A connection with more patience than the client has by itself: the machine may be busy.
pub(crate) async fn connect(url: &str) -> RedisResult<MultiplexedConnection> {
    let patience = Some(Duration::from_secs(30));
    let config = AsyncConnectionConfig::new();
    let config = config.set_connection_timeout(patience).set_response_timeout(patience);
    let client = redis::Client::open(url)?;
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// The program behind every server of the tests: `redis-server`, or what `IDEM_REDIS_SERVER` names, such as a Valkey.
pub(crate) fn redis_server() -> Command {
    Command::new(std::env::var_os("IDEM_REDIS_SERVER").unwrap_or_else(|| "redis-server".into()))
}

/// The folder of what a durable server writes, in its own.
const APPEND_ONLY: &str = "appendonly";

fn spawn(port: u16, folder: &TempDir, arguments: &[String]) -> Child {
    redis_server()
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--port", &port.to_string()])
        .arg("--dir")
        .arg(folder.path())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server starts; `cargo xtask setup` installs it")
}

/// Waits until the child answers; false if it ends before.
pub(crate) async fn answers(child: &mut Child, port: u16) -> bool {
    let patience = Instant::now() + Duration::from_secs(30);
    let client = redis::Client::open(("127.0.0.1", port)).expect("a valid address");
    loop {
        let connected = client.get_multiplexed_async_connection().await.is_ok();
        if child.try_wait().expect("it is our child").is_some() {
            return false;
        }
        if connected {
            return true;
        }
        assert!(Instant::now() < patience, "redis-server does not answer");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
