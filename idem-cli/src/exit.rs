//! Exit codes, and why a command has failed.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use idem_core::BackendError;

/// How a command ends. `idem --help` and `docs/cli.md` have the same table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The command did what it was asked for.
    Done = 0,
    /// The backend cannot be reached, or refuses.
    Failed = 1,
    /// The command line, or a file that it names, is wrong. Nothing was changed.
    Usage = 2,
    /// No record is there.
    Absent = 3,
    /// The record has changed since it was shown. Nothing was changed.
    Changed = 4,
    /// A handler may be running under the record. Nothing was changed.
    Live = 5,
    /// `doctor` has found a failing check, or `list --expect-none` a record.
    Unhealthy = 6,
    /// `why`: the service would not run the request, and would not replay an answer.
    Refused = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command has failed. It shows neither credentials nor what a record contains.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    text: String,
}

impl Failure {
    /// The backend, or this machine.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self::of(Exit::Failed, text)
    }

    /// The command line is wrong.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::of(Exit::Usage, text)
    }

    /// No record is there.
    pub(crate) fn absent(text: impl Into<String>) -> Self {
        Self::of(Exit::Absent, text)
    }

    fn of(exit: Exit, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { exit, text }
    }

    /// Adds a cause, and the causes of the cause.
    pub(crate) fn because(mut self, cause: &dyn Error) -> Self {
        let mut next = Some(cause);
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some errors repeat what is below them.
            if !self.text.contains(&text) {
                self.text = format!("{}: {text}", self.text);
            }
            next = cause.source();
        }
        self
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        let failure = Self::new(error.to_string());
        match error.source() {
            Some(source) => failure.because(source),
            None => failure,
        }
    }
}
