//! How much memory the records of a backend may take.
//!
//! Owns the count of their bytes and its bound. Does not own the records: a shard reports what it adds and removes.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::State;
use crate::{BackendError, BackendErrorKind, Completion, RecordKey};

/// What a record takes beside its key and its answer: its entries in both tables of a shard, and the allocator's share.
///
/// Measured by the resident memory of a million records on Linux: 370 to 645 bytes, the most just after the hash tables have
/// grown.
pub(super) const ENTRY_BYTES: usize = 672;

/// What a step takes beside its name and its bytes.
const STEP_BYTES: usize = 128;

/// The length of the key for which `check` asks whether a claim would be accepted.
const USUAL_KEY: usize = 64;

/// There is no room for another record.
#[derive(Debug)]
pub(super) struct Full;

/// The bytes of all records of a backend, and their bound.
#[derive(Debug)]
pub(super) struct Room {
    taken: AtomicUsize,
    max: AtomicUsize,
}

impl Room {
    pub(super) fn new(max: usize) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
        }
    }

    pub(super) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    pub(super) fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes `bytes` for a new record, if the bound allows it.
    pub(super) fn reserve(&self, bytes: usize) -> Result<(), Full> {
        let max = self.max.load(Ordering::Relaxed);
        let fitting = |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= max);
        let reserved = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fitting);
        reserved.map(drop).map_err(|_taken| Full)
    }

    /// Counts a record that had `before` bytes and has `after` now, which is never refused.
    pub(super) fn change(&self, before: usize, after: usize) {
        self.update(|taken| taken.saturating_add(after).saturating_sub(before));
    }

    /// Gives `bytes` back.
    pub(super) fn give_back(&self, bytes: usize) {
        self.update(|taken| taken.saturating_sub(bytes));
    }

    fn update(&self, change: impl Fn(usize) -> usize) {
        let changed = |taken| Some(change(taken));
        // It changes whatever it finds, so there is no error.
        let _ = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
    }

    /// Whether a claim with a key of usual length would be accepted.
    pub(super) fn check(&self) -> Result<(), Full> {
        let wanted = ENTRY_BYTES + USUAL_KEY;
        let fits = self.taken().saturating_add(wanted) <= self.max.load(Ordering::Relaxed);
        if fits { Ok(()) } else { Err(Full) }
    }

    /// The error of a call that found no room. It has changed nothing.
    pub(super) fn error(&self) -> BackendError {
        let max = self.max.load(Ordering::Relaxed);
        let context = format!(
            "the records in memory have reached their bound of {max} bytes; raise it by \
             `MemoryBackend::with_max_bytes`, or keep the records in SQLite, Redis or Postgres"
        );
        BackendError::new(BackendErrorKind::Unavailable, context).not_written()
    }
}

/// The bytes that a record counts with. Both tables of a shard share the bytes of its key.
pub(super) fn record_bytes(key: &RecordKey, state: &State) -> usize {
    let held = match state {
        State::Completed {
            completion: Completion::Stored(payload),
            ..
        } => payload.len(),
        State::Completed { .. } => 0,
        State::Claimed { steps, .. } | State::Parked { steps, .. } => steps
            .iter()
            .map(|(name, step)| STEP_BYTES + name.len() + step.len())
            .sum(),
    };
    ENTRY_BYTES + key.as_str().len() + held
}
