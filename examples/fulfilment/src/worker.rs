//! A consumer as a child process: this program once more.
//!
//! Owns how it is started, killed and stopped, and reads what it says into the [`Journal`]. Does not own what it does.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::{self, Config};
use crate::journal::{Entry, Journal};

/// The command of a consumer process. It consumes until its stdin is closed, so it ends also if its parent was killed.
pub const CONSUME: &str = "consume";

/// The longest it may take to end.
const LIMIT: Duration = Duration::from_mins(1);

/// Why a consumer process is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// It cannot be started, killed or waited for.
    #[error("a consumer process cannot be started or ended")]
    Process(#[from] io::Error),
    /// It does not end.
    #[error("a consumer process does not end")]
    Hangs,
    /// It has failed, and said on stderr why.
    #[error("a consumer process ended with {0}")]
    Failed(ExitStatus),
}

/// The running process. Dropping it kills it.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    /// Its id.
    pub id: u32,
    /// While it is open, the process consumes.
    stdin: Option<ChildStdin>,
    reading: JoinHandle<()>,
}

impl Worker {
    /// Starts a consumer process.
    ///
    /// # Errors
    ///
    /// If there is no such program.
    pub fn start(program: &Path, config: &Config, journal: &Journal) -> Result<Self, WorkerError> {
        let mut child = Command::new(program)
            .arg(CONSUME)
            .env_remove(config::REDIS_URL.name)
            .envs(config.to_env())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let id = child.id().unwrap_or_default();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (consumer, journal) = (Arc::from(&*config.consumer), journal.clone());
        let reading = tokio::spawn(async move {
            if let Some(stdout) = stdout {
                read(stdout, consumer, id, journal).await;
            }
        });
        Ok(Self {
            child,
            id,
            stdin,
            reading,
        })
    }

    /// Kills it with SIGKILL, and waits until everything that it has said is read.
    ///
    /// # Errors
    ///
    /// If it has ended by itself and failed.
    pub async fn kill(mut self) -> Result<(), WorkerError> {
        self.child.kill().await?;
        self.read().await
    }

    /// Lets it finish what it has taken, and waits until it has ended.
    ///
    /// # Errors
    ///
    /// If it hangs, or has failed.
    pub async fn stop(mut self) -> Result<(), WorkerError> {
        drop(self.stdin.take());
        let status = timeout(LIMIT, self.child.wait()).await;
        let status = status.map_err(|_elapsed| WorkerError::Hangs)??;
        self.read().await?;
        if status.success() {
            Ok(())
        } else {
            Err(WorkerError::Failed(status))
        }
    }

    /// Waits until it ends by itself, which it does if it cannot begin.
    ///
    /// # Errors
    ///
    /// If it cannot be waited for.
    pub async fn ended(&mut self) -> Result<WorkerError, WorkerError> {
        Ok(WorkerError::Failed(self.child.wait().await?))
    }

    async fn read(&mut self) -> Result<(), WorkerError> {
        let read = timeout(LIMIT, &mut self.reading).await;
        read.map_err(|_elapsed| WorkerError::Hangs)?.map_err(io::Error::from)?;
        Ok(())
    }
}

async fn read(stdout: ChildStdout, consumer: Arc<str>, process: u32, journal: Journal) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(event) = line.parse() {
            let consumer = consumer.clone();
            journal.add(Entry {
                consumer,
                process,
                event,
            });
        }
    }
}
