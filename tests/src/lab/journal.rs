//! What has happened, in the order in which it happened, whoever died meanwhile.
//!
//! Owns one file that all processes append to. A line is one write, so the order of lines is an order in time that no
//! clock has to agree on; whoever is about to die, or to do harm, says so before.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::lab::clock;
use crate::lab::plan::Change;
use crate::lab::service::Point;

/// The file that events are appended to; clones share it.
#[derive(Clone, Debug)]
pub struct Journal(Arc<File>);

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// For readers, by a clock that all processes share. What came first is said by the order of lines.
    pub at: Duration,
    /// Which process wrote it.
    pub process: u32,
    /// What happened.
    pub event: Event,
}

/// What happens to handlers, tasks, messages, processes and servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A handler starts.
    Began {
        /// Its idempotency key.
        key: String,
        /// Which of the requests under the key it runs for.
        request: String,
        /// What the body orders.
        order: String,
        /// Which run it is, as the handler is told.
        attempt: u32,
        /// Its fencing token, which names the run in all that follows.
        token: String,
    },
    /// A handler has its effect.
    Effect {
        /// Of which run.
        token: String,
    },
    /// A handler is done, and its answer about to be recorded.
    Ended {
        /// Of which run.
        token: String,
    },
    /// A task ended without an effect, and is to be run again.
    Released {
        /// Of which run.
        token: String,
    },
    /// The queue has a consumer's word that a message is done.
    Acknowledged {
        /// The consumer and the message.
        key: String,
    },
    /// The queue has a consumer's word that a message is to be put aside.
    SetAside {
        /// The consumer and the message.
        key: String,
    },
    /// The process is about to kill itself.
    Dies {
        /// For which key.
        key: String,
        /// Where on the way of the request.
        at: Point,
        /// Whether it holds an answer in hand that it knows to be recorded.
        recorded: bool,
    },
    /// The lab is about to kill a process.
    Killed {
        /// Which.
        process: u32,
    },
    /// An operator is about to settle a record.
    Settles {
        /// Its idempotency key.
        key: String,
        /// How.
        change: Change,
        /// Tells this settlement from others.
        number: u64,
    },
    /// An operator was told what a settlement came to.
    Settled {
        /// Its idempotency key.
        key: String,
        /// Which.
        number: u64,
        /// Whether it was applied.
        is_applied: bool,
    },
    /// The lab is about to do harm.
    Fault {
        /// Which.
        what: String,
        /// Whether the server loses what it has recorded.
        loses: bool,
    },
}

impl Journal {
    /// Opens or creates the file.
    pub fn open(file: &Path) -> Self {
        let opened = OpenOptions::new().append(true).create(true).open(file);
        Self(Arc::new(opened.expect("a journal that can be written")))
    }

    /// Adds a line.
    pub fn write(&self, event: Event) {
        let at = clock::now();
        let process = std::process::id();
        let mut line = serde_json::to_vec(&Entry { at, process, event }).expect("plain data");
        line.push(b'\n');
        (&*self.0).write_all(&line).expect("the journal can be written");
    }
}

/// Reads all lines that are there.
pub fn read(file: &Path) -> Vec<Entry> {
    let text = std::fs::read_to_string(file).expect("the journal can be read");
    let entry = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(entry).collect()
}
