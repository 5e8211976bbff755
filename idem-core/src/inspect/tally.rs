//! The numbers of a whole store.
//!
//! Owns the counts by operation, in bounded memory whatever the number of records. Does not own the scan.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::{Listed, RecordState};

/// How many operations are counted by name. The operation of a request that no route matches is its path, so a client could
/// otherwise make the table grow.
const MAX_OPERATIONS: usize = 1_000;

/// How many records there are, by operation and state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    operations: BTreeMap<String, OperationTally>,
    others: OperationTally,
    /// How many records cannot be read.
    pub unreadable: u64,
}

/// How many records of an operation there are, by state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationTally {
    /// Claimed, and the lease has not lapsed.
    pub in_flight: u64,
    /// Claimed, and the lease has lapsed: a process died, or lost the store.
    pub lapsed: u64,
    /// Ended without an outcome, with steps.
    pub parked: u64,
    /// Completed, and the answer is kept.
    pub stored: u64,
    /// Completed, and the answer is not kept.
    pub not_stored: u64,
    /// Completed, and the outcome is unknown.
    pub unknown: u64,
    /// The bytes of all answers.
    pub payload_bytes: u64,
    /// When the oldest record began that has no outcome.
    pub oldest_unfinished: Option<SystemTime>,
}

impl OperationTally {
    /// How many records there are.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.in_flight + self.lapsed + self.parked + self.stored + self.not_stored + self.unknown
    }

    fn add(&mut self, state: &RecordState, began_at: SystemTime) {
        let count = match state {
            RecordState::Claimed { remaining, .. } if remaining.is_zero() => &mut self.lapsed,
            RecordState::Claimed { .. } => &mut self.in_flight,
            RecordState::Parked => &mut self.parked,
            RecordState::Stored { len, .. } => {
                self.payload_bytes = self.payload_bytes.saturating_add(*len);
                &mut self.stored
            }
            RecordState::NotStored => &mut self.not_stored,
            RecordState::Unknown => &mut self.unknown,
        };
        *count += 1;
        if matches!(state, RecordState::Claimed { .. } | RecordState::Parked) {
            let oldest = self.oldest_unfinished.unwrap_or(began_at);
            self.oldest_unfinished = Some(oldest.min(began_at));
        }
    }
}

impl Tally {
    /// Counts one record.
    pub fn add(&mut self, listed: &Listed) {
        let record = match listed {
            Listed::Record(record) => record,
            Listed::Unreadable(_) => {
                self.unreadable += 1;
                return;
            }
        };
        let operation = record.key.operation();
        let is_full = self.operations.len() >= MAX_OPERATIONS;
        let tally = if is_full && !self.operations.contains_key(&*operation) {
            &mut self.others
        } else {
            self.operations.entry(operation.into_owned()).or_default()
        };
        tally.add(&record.state, record.began_at);
    }

    /// The operations by name, and the sum of those beyond the first 1,000 as `None`.
    pub fn operations(&self) -> impl Iterator<Item = (Option<&str>, &OperationTally)> {
        let named = self.operations.iter().map(|(name, tally)| (Some(name.as_str()), tally));
        let others = (self.others.records() > 0).then_some((None, &self.others));
        named.chain(others)
    }
}
