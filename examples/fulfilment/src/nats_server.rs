//! A `nats-server` with `JetStream` as a child process.
//!
//! Owns the process, its port and its folder: both are gone when it is dropped. Does not own what is stored in it.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::config::{InvalidVariable, SERVER};

/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where distributions have servers that are on an administrator's PATH alone.
const FOR_ADMINISTRATORS: &str = "/usr/sbin";

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A variable has a value that cannot be used.
    #[error(transparent)]
    Variable(#[from] InvalidVariable),
    /// There is no such program.
    #[error("there is no program `{}`; `cargo xtask setup` installs it, or name it in {}", .0, SERVER.name)]
    Missing(String),
    /// The program cannot be started, or its folder cannot be used.
    #[error("`nats-server` cannot be started")]
    Start(#[from] io::Error),
    /// It has ended.
    #[error("`nats-server` ended with {status}: {log}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: String,
    },
    /// It does not listen.
    #[error("`nats-server` does not listen after {} s", PATIENCE.as_secs())]
    Silent,
}

/// The running server. Dropping it stops it, and removes what it has stored.
#[derive(Debug)]
pub struct NatsServer {
    child: Child,
    url: String,
    folder: TempDir,
}

/// The file in which the server says where it listens.
#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

impl NatsServer {
    /// Starts a server on a free loopback port, over a temporary folder, and waits until it listens.
    ///
    /// # Errors
    ///
    /// [`ServerError`].
    pub async fn start() -> Result<Self, ServerError> {
        let program = program()?;
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("log");
        let child = Command::new(program)
            // The system chooses the port, so nobody else can have taken it.
            .args(["--addr", "127.0.0.1", "--port", "-1", "--jetstream"])
            .args(["--ports_file_dir".as_ref(), folder.path()])
            .args(["--store_dir".as_ref(), folder.path().join("store").as_path()])
            .args(["--log".as_ref(), log.as_path()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut server = Self {
            child,
            url: String::new(),
            folder,
        };
        let limit = Instant::now() + PATIENCE;
        while Instant::now() < limit {
            if let Some(url) = server.listens() {
                server.url = url;
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                let log = fs::read_to_string(&log).unwrap_or_default();
                let log = log.lines().last().unwrap_or_default().to_owned();
                return Err(ServerError::Ended { status, log });
            }
            sleep(Duration::from_millis(10)).await;
        }
        Err(ServerError::Silent)
    }

    /// Where it listens, once its file is there as a whole.
    fn listens(&self) -> Option<String> {
        let mut files = fs::read_dir(self.folder.path()).ok()?.flatten().map(|file| file.path());
        let ports = files.find(|file| file.extension().is_some_and(|extension| extension == "ports"))?;
        let ports: Ports = serde_json::from_slice(&fs::read(ports).ok()?).ok()?;
        ports.nats.into_iter().next()
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Result<PathBuf, ServerError> {
    let named: String = SERVER.parse()?;
    if Path::new(&named).components().count() > 1 {
        return Some(PathBuf::from(&named))
            .filter(|program| program.is_file())
            .ok_or(ServerError::Missing(named));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from(FOR_ADMINISTRATORS)]);
    let mut programs = folders.map(|folder| folder.join(&named));
    let found = programs.find(|program| program.is_file());
    found.ok_or(ServerError::Missing(named))
}
