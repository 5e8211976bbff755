//! A program as a process, and the carrier's book.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use tempfile::TempDir;

/// It is killed when this is dropped.
pub(crate) struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.stderr(Stdio::null()).spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("it is piped");
        let lines = BufReader::new(stdout).lines();
        Self { child, lines }
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> String {
        let line = self.lines.next().expect("it runs");
        line.expect("it is text")
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        writeln!(stdin, "{line}").expect("it reads");
        self.line()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It is gone either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Books of carriers.
pub(crate) struct Books(TempDir);

impl Books {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A book that nobody can write in until somebody reads it.
    pub(crate) fn closed(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo starts");
        assert!(made.success());
        path
    }
}

/// The orders in a book, in the order of their shipment.
pub(crate) fn shipped(book: &Path) -> Vec<String> {
    let text = fs::read_to_string(book).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
