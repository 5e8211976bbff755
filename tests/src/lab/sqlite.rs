//! The file that the fleet keeps its records in, and the clocks of the processes that share it.

use super::ledger;
use super::plan::PROCESSES;
use crate::{SqliteFile, SteppedClock};

/// A file on a disk of its own where that is possible, and a clock for each process where that is possible.
#[derive(Debug)]
pub(super) struct Sqlite {
    pub(super) file: SqliteFile,
    pub(super) clocks: Vec<SteppedClock>,
}

impl Sqlite {
    pub(super) async fn start() -> Self {
        let file = SqliteFile::create_on_disk().await;
        ledger::make_in_file(&file).await;
        let clocks = (0..PROCESSES).filter_map(|_| SteppedClock::new()).collect();
        Self { file, clocks }
    }
}
