//! The processes of a measurement: Redis servers, services, loads. All end when they are dropped.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, InfoDict};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::load::{Load, Outcome};

/// A Redis server of its own for a service.
pub(crate) struct Redis {
    pub(crate) url: String,
    _child: Child,
    _folder: TempDir,
}

/// What a server has done and holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Seconds of processor time since it started, parsing and sending included.
    pub(crate) processor: f64,
    /// Bytes in use.
    pub(crate) memory: f64,
    /// How many keys there are.
    pub(crate) keys: f64,
}

impl Redis {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port().to_string();
        drop(listener);
        let child = Command::new("redis-server")
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--port",
                &port,
                "--dir",
            ])
            .arg(folder.path())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server starts; `cargo xtask setup` installs it");
        let redis = Self {
            url: format!("redis://127.0.0.1:{port}/"),
            _child: child,
            _folder: folder,
        };
        let patience = Instant::now() + Duration::from_secs(10);
        while redis.try_connect().await.is_none() {
            assert!(Instant::now() < patience, "redis-server does not answer");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        redis
    }

    async fn try_connect(&self) -> Option<MultiplexedConnection> {
        let client = redis::Client::open(self.url.as_str()).ok()?;
        // A server that makes room for millions of records answers late.
        let patient = AsyncConnectionConfig::new().set_response_timeout(None);
        client.get_multiplexed_async_connection_with_config(&patient).await.ok()
    }

    pub(crate) async fn connection(&self) -> MultiplexedConnection {
        self.try_connect().await.expect("the server answers")
    }

    pub(crate) async fn usage(&self) -> Usage {
        let mut connection = self.connection().await;
        let info: InfoDict = redis::cmd("INFO").query_async(&mut connection).await.expect("INFO");
        let number = |name| info.get::<f64>(name).expect("it is always there");
        let keys: u32 = redis::cmd("DBSIZE").query_async(&mut connection).await.expect("DBSIZE");
        Usage {
            processor: number("used_cpu_sys") + number("used_cpu_user"),
            memory: number("used_memory"),
            keys: keys.into(),
        }
    }

    /// How many commands about records clients have sent.
    ///
    /// Redis counts what scripts call as well: a completion calls three, and looks at a part of the claim alone.
    pub(crate) async fn commands(&self) -> f64 {
        let mut info = redis::cmd("INFO");
        let info: InfoDict = info
            .arg("commandstats")
            .query_async(&mut self.connection().await)
            .await
            .expect("INFO");
        let calls = |command: &str| {
            let stats: Option<String> = info.get(&format!("cmdstat_{command}"));
            let calls = stats
                .as_deref()
                .and_then(|stats| stats.strip_prefix("calls=")?.split(',').next()?.parse().ok());
            calls.unwrap_or(0.0)
        };
        let all = ["set", "get", "getrange", "pttl", "pexpire", "del", "publish", "evalsha"]
            .into_iter()
            .map(calls)
            .sum::<f64>();
        all - 3.0 * calls("evalsha")
    }
}

/// A service in a process of its own.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "dropping it ends the process"))]
    child: Child,
}

impl Service {
    pub(crate) async fn start(variant: &str, redis: &str) -> Self {
        Self::start_with(variant, redis, None).await
    }

    /// On so many threads; as many as the machine has where nothing is said.
    pub(crate) async fn start_with(variant: &str, redis: &str, threads: Option<u32>) -> Self {
        let threads = threads.map(|threads| ("TOKIO_WORKER_THREADS", threads.to_string()));
        let mut command = Command::new(this_program());
        command.args(["serve", variant, redis]).envs(threads);
        Self::spawn(command).await
    }

    /// As the child of a program that observes it, whose arguments end with its own.
    #[cfg(feature = "sqlite")]
    pub(crate) async fn start_under(mut observer: Command, variant: &str, url: &str) -> Self {
        observer.arg(this_program()).args(["serve", variant, url]);
        Self::spawn(observer).await
    }

    async fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; see `cargo xtask setup`"));
        let stdout = child.stdout.take().expect("it is piped");
        let line = BufReader::new(stdout).lines().next_line().await;
        let line = line.expect("a pipe").expect("it says where it listens");
        Self {
            address: line.parse().expect("an address"),
            child,
        }
    }

    /// Ends it by SIGTERM, which an observer passes on, and waits until it has ended.
    #[cfg(feature = "sqlite")]
    pub(crate) async fn stop(mut self) {
        let id = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().await;
        assert!(sent.is_ok_and(|status| status.success()), "it could not be stopped");
        self.child.wait().await.expect("a child can be waited for");
    }
}

pub(crate) fn this_program() -> PathBuf {
    std::env::current_exe().expect("this program")
}

/// Sends the load from a process of its own.
pub(crate) async fn measure(load: &Load) -> Outcome {
    let output = Command::new(this_program())
        .args(load.arguments())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .expect("this program starts");
    assert!(output.status.success(), "the load failed: {load:?}");
    serde_json::from_slice(&output.stdout).expect("it prints its outcome")
}
