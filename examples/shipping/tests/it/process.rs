//! A child process that cannot outlive its test, and the service as one.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::Client;

/// How long anything may take before the test fails; far above what it takes.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// The binary with some arguments and variables, in a folder of its own. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    stdout: Output,
    stderr: Output,
    _folder: TempDir,
}

impl Process {
    pub(crate) fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_shipping"));
        for inherited in [
            "DATABASE_URL",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_SERVICE_NAME",
            "REDIS_URL",
            "RUST_LOG",
            "SHIPPING_ADDR",
            "SHIPPING_DELAY_MS",
            "SHIPPING_TOKENS",
        ] {
            command.env_remove(inherited);
        }
        command
            .args(arguments)
            .envs(variables.iter().copied())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let stdout = Output::of(child.stdout.take().expect("piped"));
        let stderr = Output::of(child.stderr.take().expect("piped"));
        Self {
            child,
            stdout,
            stderr,
            _folder: folder,
        }
    }

    /// Waits for a line that contains `part` on stdout.
    pub(crate) fn wait_for_line(&mut self, part: &str) -> String {
        self.stdout.wait_for(part)
    }

    /// Waits for a line that contains `part` on stderr.
    pub(crate) fn wait_for_log(&mut self, part: &str) {
        self.stderr.wait_for(part);
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("a child can be waited for");
    }

    #[cfg(unix)]
    pub(crate) fn terminate(&self) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
        assert!(status.success(), "SIGTERM could not be sent");
    }

    /// Waits until the process ends by itself.
    pub(crate) fn ended(mut self) -> Ended {
        let limit = Instant::now() + LIMIT;
        let status = loop {
            match self.child.try_wait().expect("a child can be waited for") {
                Some(status) => break status,
                None => assert!(
                    Instant::now() < limit,
                    "it does not end; stderr: {:#?}",
                    self.stderr.lines
                ),
            }
            thread::sleep(Duration::from_millis(10));
        };
        Ended {
            status,
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process that has ended leaves behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The lines of a pipe, read as they come so that the child never blocks on it.
struct Output {
    receiver: Receiver<String>,
    lines: Vec<String>,
}

impl Output {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let lines = Vec::new();
        Self { receiver, lines }
    }

    fn wait_for(&mut self, part: &str) -> String {
        let limit = Instant::now() + LIMIT;
        while let Some(line) = self.next(limit) {
            if line.contains(part) {
                return line;
            }
        }
        panic!("it ended without {part:?}; what it said: {:#?}", self.lines);
    }

    /// Everything up to the end of the pipe.
    fn all(&mut self) -> String {
        let limit = Instant::now() + LIMIT;
        while self.next(limit).is_some() {}
        self.lines.join("\n")
    }

    fn next(&mut self, limit: Instant) -> Option<String> {
        match self
            .receiver
            .recv_timeout(limit.saturating_duration_since(Instant::now()))
        {
            Ok(line) => {
                self.lines.push(line.clone());
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line came; those before: {:#?}", self.lines),
        }
    }
}

/// A service that accepts connections.
pub(crate) struct Service {
    pub(crate) process: Process,
    pub(crate) client: Client,
}

impl Service {
    /// On a free port, with orders that take `delay_ms`.
    pub(crate) fn start(delay_ms: u32) -> Self {
        Self::start_with(&[("SHIPPING_DELAY_MS", &delay_ms.to_string())])
    }

    pub(crate) fn start_with(variables: &[(&str, &str)]) -> Self {
        let variables = [&[("SHIPPING_ADDR", "127.0.0.1:0")], variables].concat();
        let mut process = Process::start(&[], &variables);
        let line = process.wait_for_line("listening on");
        let addr = line
            .strip_prefix("listening on http://")
            .expect("an address")
            .to_owned();
        let client = Client::new(addr);
        Self { process, client }
    }
}
