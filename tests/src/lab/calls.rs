//! Every call on the backend, in a file that outlives the processes, and whether the specification explains them.
//!
//! Owns the file, and what the lab knows of a history besides the recorded calls: which faults lose records, and that a
//! `Transaction` completes its claim without a call that could be recorded. Does not own the check: [`history`].

mod lines;
mod settlements;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use idem_core::spec::history::{self, CallId, Event, Log, Report};
use idem_core::spec::{Call, Reply};
use idem_core::{Claim, Completion, Record};

use self::lines::Line;
use super::clock;
use super::plan::Route;

/// The file that recorders append to; clones share it. An event is one write, so that a killed process leaves whole lines.
#[derive(Clone, Debug)]
pub struct CallLog(Arc<File>);

impl CallLog {
    /// Opens or creates the file.
    pub fn open(file: &Path) -> Self {
        let opened = OpenOptions::new().append(true).create(true).open(file);
        Self(Arc::new(opened.expect("a log that can be written")))
    }
}

impl Log for CallLog {
    fn now(&self) -> Duration {
        clock::now()
    }

    fn write(&self, event: Event) {
        let mut line = serde_json::to_vec(&Line::of(event)).expect("plain data");
        line.push(b'\n');
        (&*self.0).write_all(&line).expect("the log can be written");
    }
}

/// Checks all histories in the file.
pub(super) fn check(file: &Path) -> Report {
    let mut events = read(file);
    let assumed = completions_in_transactions(&events);
    let number = assumed.len();
    events.extend(assumed);
    let mut report = history::check(events);
    report.calls -= number;
    report.open -= number;
    report
}

fn read(file: &Path) -> Vec<Event> {
    let text = std::fs::read_to_string(file).expect("the log can be read");
    // A process that lives may be in the middle of a line.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let event = |line| {
        let line: Line = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        line.event()
    };
    whole.lines().map(event).collect()
}

/// The outcome of a transaction that no call has read.
static UNREAD: Completion = Completion::NotStored;

/// What was seen of one key.
#[derive(Default)]
struct Seen<'a> {
    /// When each claim was asked for.
    claims: Vec<(Duration, &'a Claim)>,
    outcomes: Vec<&'a Completion>,
}

/// An open completion of each claim by each outcome that was read, and by one that was not, for the keys whose handlers complete
/// in a transaction. The transaction may have done so at any time after the claim, or never.
fn completions_in_transactions(events: &[Event]) -> Vec<Event> {
    let mut keys: BTreeMap<&str, Seen<'_>> = BTreeMap::new();
    let mut calls = BTreeMap::new();
    for event in events {
        match event {
            Event::Began { id, at, key, call } if key.contains(Route::Transacting.path()) => {
                calls.insert(id, key.as_str());
                if let Call::Claim(claim) | Call::TakeOver { claim, .. } = call {
                    keys.entry(key).or_default().claims.push((*at, claim));
                }
            }
            Event::Returned { id, reply, .. } => {
                let outcome = match reply {
                    Some(Reply::Existing(record) | Reply::Found(Some(record))) => outcome(record),
                    _ => None,
                };
                if let (Some(key), Some(outcome)) = (calls.get(id), outcome) {
                    let outcomes = &mut keys.entry(key).or_default().outcomes;
                    if !outcomes.contains(&outcome) {
                        outcomes.push(outcome);
                    }
                }
            }
            _ => {}
        }
    }
    let each = keys.into_iter().flat_map(|(key, Seen { claims, mut outcomes })| {
        outcomes.push(&UNREAD);
        let pairs = move |(at, claim)| {
            outcomes
                .clone()
                .into_iter()
                .map(move |outcome| (key, at, claim, outcome))
        };
        claims.into_iter().flat_map(pairs)
    });
    (0..)
        .zip(each)
        .map(|(number, (key, at, claim, outcome))| Event::Began {
            // No process has this number.
            id: CallId { process: 0, number },
            at,
            key: key.to_owned(),
            call: Call::Complete {
                claim: claim.clone(),
                completion: outcome.clone(),
                ttl: claim.ttl,
            },
        })
        .collect()
}

fn outcome(record: &Record) -> Option<&Completion> {
    match record {
        Record::Completed { completion, .. } => Some(completion),
        Record::Claimed { .. } | Record::Parked { .. } => None,
    }
}
