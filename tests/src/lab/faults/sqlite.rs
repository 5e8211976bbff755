//! What can go wrong with a file of SQLite and the processes that share it.

use std::fs;
use std::time::Duration;

use tokio::time::sleep;

use crate::lab::fleet::Fleet;
use crate::lab::journal::Journal;
use crate::lab::random::Random;
use crate::lab::sqlite::Sqlite;

/// The time of day is wrong by so many seconds.
const STEP: i64 = 60 * 60;

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lab) enum SqliteFault {
    /// A process is killed, wherever it is.
    Kill(usize),
    /// All processes are killed at once, so that nobody empties the log.
    KillAll,
    /// A stranger has the one lock for writing.
    HoldWrites(Duration),
    /// A stranger reads an old state of the file, so that the log grows.
    HoldSnapshot(Duration),
    /// There is no room on the disk.
    Fill(Duration),
    /// Nobody may write to the file and its log.
    ReadOnly(Duration),
    /// The time of day of a process is set to so many seconds beside the right one, and stays so.
    Step(usize, i64),
}

impl SqliteFault {
    /// One of each kind, and two of those that take a moment and concern one process.
    pub(super) fn deal(random: &mut Random) -> Vec<Self> {
        let mut place = || random.one_of(&[0, 1, 2]);
        let places = [(); 4].map(|()| place());
        let mut step = || random.one_of(&[-STEP, STEP]);
        let steps = [step(), step()];
        vec![
            Self::Kill(places[0]),
            Self::Kill(places[1]),
            Self::KillAll,
            Self::HoldWrites(random.millis(500, 2_500)),
            Self::HoldSnapshot(random.millis(1_500, 4_000)),
            Self::Fill(random.millis(500, 2_500)),
            Self::ReadOnly(random.millis(500, 2_500)),
            Self::Step(places[2], steps[0]),
            Self::Step(places[3], steps[1]),
        ]
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill(_) => "process killed at any moment",
            Self::KillAll => "all processes killed, log left behind",
            Self::HoldWrites(_) => "locked by a writing stranger",
            Self::HoldSnapshot(_) => "log grows under a reading stranger",
            Self::Fill(_) => "disk full",
            Self::ReadOnly(_) => "file and log read only",
            Self::Step(_, STEP) => "time of day of a process 1 h ahead",
            Self::Step(..) => "time of day of a process 1 h behind",
        }
    }

    /// Whether leases run on while they cannot be renewed.
    pub(super) fn stalls(self) -> bool {
        matches!(self, Self::HoldWrites(_) | Self::Fill(_) | Self::ReadOnly(_))
    }

    pub(super) fn length(self) -> Duration {
        match self {
            Self::HoldWrites(length) | Self::HoldSnapshot(length) | Self::Fill(length) | Self::ReadOnly(length) => {
                length
            }
            Self::Kill(_) | Self::KillAll | Self::Step(..) => Duration::ZERO,
        }
    }

    /// Whether this user on this system can do it.
    pub(super) fn is_possible(self, sqlite: &Sqlite) -> bool {
        match self {
            // The disk knows the attribute that forbids writes.
            Self::Fill(_) | Self::ReadOnly(_) => sqlite.file.disk().is_some(),
            Self::Step(..) => !sqlite.clocks.is_empty(),
            Self::Kill(_) | Self::KillAll | Self::HoldWrites(_) | Self::HoldSnapshot(_) => true,
        }
    }

    pub(super) async fn inject(self, Sqlite { file, clocks }: &mut Sqlite, fleet: &Fleet, journal: &Journal) {
        match self {
            Self::Kill(at) => fleet.kill(at, journal),
            Self::KillAll => fleet.kill_all(journal, || {
                let log = fs::metadata(file.log());
                assert!(log.is_ok_and(|log| log.len() > 0), "the log was not left behind");
            }),
            Self::HoldWrites(length) => {
                let held = file.hold_writes().await;
                sleep(length).await;
                drop(held);
            }
            Self::HoldSnapshot(length) => {
                let held = file.hold_snapshot().await;
                sleep(length).await;
                drop(held);
            }
            Self::Fill(length) => {
                // The log keeps its room when it begins anew, so a full disk would not be noticed for a while.
                file.empty_log().await;
                let disk = file.disk().expect("it is possible");
                disk.fill();
                sleep(length).await;
                disk.make_room();
            }
            Self::ReadOnly(length) => {
                let is_read_only = file.set_read_only(true);
                sleep(length).await;
                let is_over = file.set_read_only(false);
                assert!(is_read_only && is_over, "the attribute could not be changed");
            }
            Self::Step(at, seconds) => clocks[at].step(seconds),
        }
    }
}
