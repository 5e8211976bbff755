//! Histories of calls on a backend, and whether the specification explains them.
//!
//! A [`Recorder`] wraps a backend and writes each call into a [`Log`]: when the call began, when it returned, and its reply.
//! [`check`] then looks, for each key, for an order of the calls in which the specification gives every recorded reply.
//!
//! - A call takes effect at one moment between its beginning and its return.
//! - A call that was dropped, or whose error leaves its effect unknown, stays **open**: it takes effect at any moment after its
//!   beginning, or never.
//! - A store that lost what it had acknowledged is outside the specification. Whoever makes it do so writes [`Event::Lost`].
//! - The store's clock runs as fast as the recorders' clock, give or take [`TOLERANCE`]. It may be set to another time.
//!
//! Does not own the specification, [`step`](super::step), nor the files that other processes write their events into.
//!
//! ```
//! use idem_core::MemoryBackend;
//! use idem_core::spec::history::{History, Recorder};
//!
//! let history = History::new();
//! let processes = [1, 2].map(|process| Recorder::new(MemoryBackend::new(), process, history.clone()));
//! // … the processes call their backend …
//! let report = history.check();
//! assert!(report.unexplained.is_empty(), "{report}");
//! # drop(processes);
//! ```

mod frame;
mod load;
mod operations;
mod recorder;
mod recorder_beside;
mod report;
mod search;
mod shortest;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use load::{Load, Random};
pub use recorder::{History, Log, Recorder};
pub use report::{Report, Unexplained};

use super::{Call, Reply};
use search::Verdict;

/// By how much a moment on the store's clock may differ from the same moment on the recorders' clock, and a duration on
/// one from the same duration on the other.
///
/// Redis counts in whole milliseconds and reads its clock once a command. Ten milliseconds are far more than that, and far less
/// than any lease or time to live that is worth checking.
pub const TOLERANCE: Duration = Duration::from_millis(10);

/// How many positions the search tries for one key before it gives the key up as unchecked.
const STEPS: usize = 200_000;

/// Identifies a call among all calls of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId {
    /// The process that made the call.
    pub process: u32,
    /// The number of the call in its process.
    pub number: u64,
}

/// One entry of a history. All times are distances from one moment that all recorders share.
#[derive(Clone, Debug)]
pub enum Event {
    /// A call began.
    Began {
        /// Identifies the call.
        id: CallId,
        /// When it began.
        at: Duration,
        /// The record key.
        key: String,
        /// What was asked.
        call: Call,
    },
    /// A call returned.
    Returned {
        /// Identifies the call.
        id: CallId,
        /// When it returned.
        at: Duration,
        /// What it returned; `None` for an error that says that nothing was changed.
        reply: Option<Reply>,
    },
    /// The store may have lost what it had acknowledged, at one moment of this time.
    Lost {
        /// The first moment.
        from: Duration,
        /// The last moment.
        to: Duration,
        /// Whether the records may have gone back to what they were before, as in a replica that lags behind. Otherwise they
        /// are gone, or unharmed.
        goes_back: bool,
    },
}

/// Checks whether the specification explains the events, key by key.
#[must_use]
pub fn check(events: impl IntoIterator<Item = Event>) -> Report {
    let mut report = Report::default();
    for (key, operations) in operations::by_key(events) {
        report.histories += 1;
        report.calls += operations.iter().filter(|operation| operation.is_call()).count();
        report.open += operations.iter().filter(|operation| operation.is_open()).count();
        match search::explain(&operations, STEPS) {
            Verdict::Explained => {}
            Verdict::GivenUp => report.unchecked += 1,
            Verdict::Unexplained => report.unexplained.push(Unexplained {
                key,
                operations: shortest::shorten(&operations),
            }),
        }
    }
    report
}
