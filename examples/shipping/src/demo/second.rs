//! A further process of the story: this program once more, over the same database and, where there is one, the same Redis.
//!
//! Owns how it is started, killed and ended, on both sides: it serves for as long as its stdin is open, so it ends also
//! when the demo was killed and could not stop it.

use std::env;
use std::io;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{DemoError, TOKENS};
use crate::config::{self, Config};
use crate::serve::{self, LISTENING, ServeError};

/// Follows `demo` on the command line of the second process.
pub(crate) const ARGUMENT: &str = "second";

/// The longest it may take to listen, and to end.
const LIMIT: Duration = Duration::from_mins(1);

/// The running process. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Second {
    child: Child,
    pub(super) id: u32,
    pub(super) url: String,
}

impl Second {
    /// Starts it and waits until it listens. What the operator chose, such as the delay, it inherits.
    pub(super) async fn start(database_url: &str) -> Result<Self, DemoError> {
        let program = env::current_exe().map_err(DemoError::NoSecond)?;
        let mut child = Command::new(program)
            .args(["demo", ARGUMENT])
            .env(config::ADDR.name, format!("{}:0", Ipv4Addr::LOCALHOST))
            .env(config::TOKENS.name, TOKENS)
            .env(config::DATABASE_URL.name, database_url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(DemoError::NoSecond)?;
        let id = child.id().unwrap_or_default();
        let mut said = String::new();
        if let Some(stdout) = child.stdout.take() {
            let reading = timeout(LIMIT, BufReader::new(stdout).read_line(&mut said)).await;
            reading
                .map_err(|_elapsed| DemoError::TooLong("the second process to listen"))?
                .map_err(DemoError::NoSecond)?;
        }
        let Some(url) = said.trim_end().strip_prefix(LISTENING) else {
            // It has closed its stdout, so it is ending, and said on stderr why.
            return Err(DemoError::NoSecond(io::ErrorKind::UnexpectedEof.into()));
        };
        let url = url.to_owned();
        Ok(Self { child, id, url })
    }

    /// Kills it with SIGKILL, and waits until it is gone. Nothing in it is told.
    pub(super) async fn kill(mut self) -> Result<(), DemoError> {
        self.child.kill().await.map_err(DemoError::NoSecond)
    }

    /// Lets it answer what it has taken, and waits until it has ended.
    pub(super) async fn stop(mut self) -> Result<(), DemoError> {
        // Waiting closes its stdin first.
        let status = timeout(LIMIT, self.child.wait()).await;
        let status = status
            .map_err(|_elapsed| DemoError::TooLong("the end of the second process"))?
            .map_err(DemoError::NoSecond)?;
        if status.success() {
            Ok(())
        } else {
            Err(DemoError::SecondEnded(status))
        }
    }
}

/// What the second process does.
pub(crate) async fn serve(config: Config) -> Result<(), ServeError> {
    let (demo, demo_ended) = oneshot::channel::<()>();
    // A thread and no task: nothing ends a read of stdin, and the runtime would wait for it where starting failed.
    thread::spawn(move || {
        // Nothing comes; this is over when the other end is closed, however that happens.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        drop(demo);
    });
    serve::until(config, async {
        let _ = demo_ended.await;
    })
    .await
}
