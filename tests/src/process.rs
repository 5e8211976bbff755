//! The service as a process of its own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::{Client, SteppedClock};

/// How to start a `server` process.
#[derive(Clone, Debug)]
pub struct Program {
    binary: PathBuf,
    backend_url: String,
    journal: Option<PathBuf>,
    calls: Option<PathBuf>,
    variables: Vec<(&'static str, PathBuf)>,
    is_quiet: bool,
}

/// A running `server` process; it is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    /// To call it.
    pub client: Client,
    child: Child,
}

impl Program {
    /// The binary `server` of this package, on the Redis or Postgres server, or the file of SQLite, at `backend_url`.
    pub fn new(binary: impl AsRef<Path>, backend_url: &str) -> Self {
        Self {
            binary: binary.as_ref().to_owned(),
            backend_url: backend_url.to_owned(),
            journal: None,
            calls: None,
            variables: Vec::new(),
            is_quiet: false,
        }
    }

    /// The same with the handlers that keep a [`Journal`](crate::lab::Journal) in the file at `journal`.
    #[must_use]
    pub fn journaled(mut self, journal: &Path) -> Self {
        self.journal = Some(journal.to_owned());
        self
    }

    /// The same with a record of all calls on its backend in the file at `calls`.
    #[must_use]
    pub fn recorded(mut self, calls: &Path) -> Self {
        self.calls = Some(calls.to_owned());
        self
    }

    /// The same going by the time of day of `clock`.
    #[must_use]
    pub fn going_by(mut self, clock: &SteppedClock) -> Self {
        self.variables.extend(clock.variables());
        self
    }

    /// The same with an environment variable of its own.
    #[must_use]
    pub fn told(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// The same without what it says when it cannot start.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.is_quiet = true;
        self
    }

    /// Starts it and waits until it listens; `None` if it ends before, as it does where its backend is away.
    pub fn try_start(&self) -> Option<Process> {
        let mut command = Command::new(&self.binary);
        command.env("BACKEND_URL", &self.backend_url);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(journal) = &self.journal {
            command.env("IDEM_JOURNAL", journal);
        }
        if let Some(calls) = &self.calls {
            command.env("IDEM_CALLS", calls);
        }
        if self.is_quiet {
            command.stderr(Stdio::null());
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let stdout = child.stdout.take().expect("it is piped");
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut line).expect("it says where it listens");
        let client = Client::new(line.trim());
        // From here on it is killed whatever happens.
        let process = Process { client, child };
        (!line.is_empty()).then_some(process)
    }

    /// The same where it has to listen.
    pub fn start(&self) -> Process {
        self.try_start().expect("the server listens")
    }
}

impl Process {
    /// Starts `program`, the binary `server` of this package, on the Redis or Postgres server, or the file of SQLite, at
    /// `backend_url`, and waits until it listens.
    pub fn start(program: impl AsRef<Path>, backend_url: &str) -> Self {
        Program::new(program, backend_url).start()
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.send_kill();
        let _ = self.child.wait();
    }

    /// Sends SIGKILL, and does not wait for its end.
    pub fn send_kill(&mut self) {
        // It is gone either way.
        let _ = self.child.kill();
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Its number in the system.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops it where it is, by SIGSTOP; [`thaw`](Self::thaw) lets it go on.
    pub fn freeze(&self) {
        signal(self.id(), "-STOP");
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self) {
        signal(self.id(), "-CONT");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to a process of ours.
pub(crate) fn signal(process: u32, signal: &str) {
    let sent = Command::new("kill").args([signal, &process.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "no signal could be sent");
}
