//! A Redis server, a program as a process, and books of a carrier.

#![allow(dead_code, reason = "each test needs another part")]

use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A process that is killed when this is dropped.
pub struct Process(Child);

impl Process {
    /// Asks it to end, and waits until it has.
    pub fn terminate(&mut self) {
        let asked = Command::new("kill").arg(self.0.id().to_string()).status();
        assert!(asked.expect("kill starts").success());
        assert!(self.0.wait().expect("it is our child").success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is gone either way.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a test needs beside a broker.
pub struct Stage {
    folder: TempDir,
    _redis: Process,
    redis: String,
}

impl Stage {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let mut server = Command::new("redis-server");
        server.args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--port",
            &port.to_string(),
            "--dir",
        ]);
        let server = server.arg(folder.path()).stdout(Stdio::null()).spawn();
        let server = Process(server.expect("redis-server starts"));
        until("Redis listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let redis = format!("redis://127.0.0.1:{port}/");
        Self {
            folder,
            redis,
            _redis: server,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A book that nobody can write in until somebody reads it.
    pub fn closed_book(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo starts");
        assert!(made.success());
        path
    }

    /// A consumer, and the lines that it logs.
    pub fn consumer(&self, program: &str, broker: &str, book: &Path) -> (Process, Lines<BufReader<ChildStderr>>) {
        let mut command = Command::new(program);
        command
            .arg(broker)
            .env("REDIS_URL", &self.redis)
            .env("BOOK", book)
            .env("RUST_LOG", "info");
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        (Process(child), lines)
    }

    /// How many tasks have begun or ended.
    pub fn records(&self) -> usize {
        let asked = Command::new("redis-cli").args(["-u", &self.redis, "DBSIZE"]).output();
        let answer = String::from_utf8(asked.expect("redis-cli starts").stdout).expect("a text");
        answer.trim().parse().expect("a number")
    }
}

pub fn order(id: &str, address: &str) -> String {
    format!(r#"{{"id": "{id}", "item": "a pump", "address": "{address}"}}"#)
}

/// The orders in a book, in the order of their shipment.
pub fn shipped(book: &Path) -> Vec<String> {
    let text = fs::read_to_string(book).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_mins(1);
    while !is_so() {
        assert!(Instant::now() < patience, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
