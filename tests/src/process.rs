//! The service as a process of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Client;

/// A running `server` process; it is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    /// To call it.
    pub client: Client,
    child: Child,
}

impl Process {
    /// Starts `program`, the binary `server` of this package, on the Redis server at `redis_url`, and waits until it
    /// listens.
    pub fn start(program: impl AsRef<Path>, redis_url: &str) -> Self {
        let mut child = Command::new(program.as_ref())
            .env("REDIS_URL", redis_url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let stdout = child.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("it says where it listens");
        Self {
            client: Client::new(line.trim()),
            child,
        }
    }
}

impl Process {
    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        // It is gone either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
