//! What a round is played on: a server, a fleet, and the files that outlive processes.
//!
//! Owns how they are put together. Does not own the load, or what is judged.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::time::sleep;

use super::calls::CallLog;
use super::faults::{Fault, Scene};
use super::fleet::Fleet;
use super::journal::{Entry, Journal, read};
use super::operator::LabOperator;
use super::oracle;
use super::plan::PROCESSES;
use super::refusals::Span;
use super::server::{Backend, Server};
use crate::Program;

/// A server, a journal and a record of all calls. Everything is gone when this is dropped.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) server: Server,
    pub(super) journal: Journal,
    calls: CallLog,
    file: PathBuf,
    /// The file of all calls on the backend.
    pub(super) recorded: PathBuf,
    _folder: TempDir,
}

impl Stage {
    pub(super) async fn set(backend: Backend) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (file, recorded) = (folder.path().join("journal"), folder.path().join("calls"));
        Self {
            server: Server::start(backend).await,
            journal: Journal::open(&file),
            calls: CallLog::open(&recorded),
            file,
            recorded,
            _folder: folder,
        }
    }

    /// Starts the processes, each told what `tell` tells it.
    pub(super) fn fleet(&self, binary: &Path, tell: impl Fn(Program) -> Program) -> Arc<Fleet> {
        let program = |at| {
            let program = Program::new(binary, &self.server.url(at));
            let program = tell(program.journaled(&self.file).recorded(&self.recorded).quiet());
            match self.server.clock(at) {
                Some(clock) => program.going_by(clock),
                None => program,
            }
        };
        Arc::new(Fleet::start((0..PROCESSES).map(program).collect()))
    }

    /// An operator of the records.
    pub(super) async fn operator(&self) -> LabOperator {
        LabOperator::start(&self.server.url(0), &self.recorded, self.journal.clone()).await
    }

    /// Lets one fault come after the other, and returns the times in which one was on and no other.
    pub(super) async fn go_wrong(&mut self, fleet: &Fleet, faults: &[(Duration, Fault)]) -> Vec<Span> {
        let mut scene = Scene {
            server: &mut self.server,
            fleet,
            journal: &self.journal,
            calls: &self.calls,
            spans: Vec::new(),
        };
        for (rest, fault) in faults {
            sleep(*rest).await;
            fault.inject(&mut scene).await;
        }
        scene.spans
    }

    /// The journal, once all handlers whose process lives have ended, or should have.
    pub(super) async fn come_to_rest(&self) -> Vec<Entry> {
        let since = Instant::now();
        loop {
            let entries = read(&self.file);
            let is_running = oracle::is_running(&entries);
            if !is_running || since.elapsed() > Duration::from_secs(10) {
                return entries;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}
