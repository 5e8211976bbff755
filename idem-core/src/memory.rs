//! The in-memory backend, for tests.
//!
//! Owns its records, and loses them when they expire or the process ends. Does not reach other processes: two servers
//! with a `MemoryBackend` each may run the same request once each.

mod inspect;
mod room;
mod shard;
mod steps;
mod waiters;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use self::room::{Full, Room, record_bytes};
use self::shard::{Entry, Shard, State};
use crate::inspect::Inspector;
use crate::steps::StepStore;
use crate::{Acquisition, Backend, BackendError, Changed, Claim, Completion, Fenced, Record, RecordKey};

const SHARDS: usize = 64;

/// How many records a claim checks for expiry, at most. A claim adds one record and may remove four, so that expired records
/// never pile up.
const SWEEP: usize = 4;

/// How many records of each shard a claim checks for expiry, at most, if there is no room for it.
const SWEEP_WHEN_FULL: usize = 16;

/// Records in this process's memory; clones share them. For tests.
///
/// The records are lost when the process ends, which is exactly when clients try again, and other processes do not see them. A
/// service keeps its records in a file of SQLite, in Redis or in Postgres.
///
/// It uses tokio's clock, so a paused clock pauses leases and expiry too. Expired records are never returned. Later claims
/// remove them from memory, a few at a time.
///
/// Its records take [`DEFAULT_MAX_BYTES`](Self::DEFAULT_MAX_BYTES) at most, or [`with_max_bytes`](Self::with_max_bytes). While
/// there is no room, new claims fail as in an outage (503 `backend-unavailable`), until records expire or are released. Nothing
/// is evicted, because the request of an evicted record would run again. Outcomes are kept even if they exceed the bound.
///
/// ```
/// use idem_core::MemoryBackend;
///
/// let backend = MemoryBackend::new();
/// assert!(backend.is_empty());
/// ```
#[derive(Clone)]
pub struct MemoryBackend {
    shards: Arc<[Mutex<Shard>]>,
    room: Arc<Room>,
}

impl MemoryBackend {
    /// How many bytes the records may take by default: 256 MiB.
    pub const DEFAULT_MAX_BYTES: usize = 256 * 1024 * 1024;

    /// An empty backend.
    #[must_use]
    pub fn new() -> Self {
        let room = Arc::new(Room::new(Self::DEFAULT_MAX_BYTES));
        let shard = |_| Mutex::new(Shard::new(room.clone()));
        let shards = (0..SHARDS).map(shard).collect();
        Self { shards, room }
    }

    /// Sets how many bytes the records may take, for this value and its clones. The default is
    /// [`DEFAULT_MAX_BYTES`](Self::DEFAULT_MAX_BYTES).
    ///
    /// A record counts with the bytes of its key, the bytes of its answer, and 672 bytes for its place in the tables, which is
    /// what it takes at most.
    ///
    /// ```
    /// use idem_core::MemoryBackend;
    ///
    /// let backend = MemoryBackend::new().with_max_bytes(16 * 1024 * 1024);
    /// assert_eq!(backend.bytes(), 0);
    /// ```
    #[must_use]
    pub fn with_max_bytes(self, bytes: usize) -> Self {
        self.room.set_max(bytes);
        self
    }

    /// The bytes that the records count with, including expired records that were not yet removed.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.room.taken()
    }

    /// The number of records, including expired records that were not yet removed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).entries.len()).sum()
    }

    /// The number of requests that wait for the end of a claim.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let waiting = |shard| lock(shard).waiters.values().map(|waiters| waiters.count).sum::<usize>();
        self.shards.iter().map(waiting).sum()
    }

    /// Whether no record is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Runs `operate` on the shard of `key`.
    fn at<T>(&self, key: &RecordKey, operate: impl FnOnce(&mut Shard, Instant) -> T) -> T {
        let mut shard = self.shard(key);
        let now = Instant::now();
        operate(&mut shard, now)
    }

    /// Runs `operate` on the shard of `key`, and again after a sweep of all shards if there was no room.
    fn with_room<T>(
        &self,
        key: &RecordKey,
        operate: impl Fn(&mut Shard, Instant) -> Result<T, Full>,
    ) -> Result<T, BackendError> {
        self.at(key, &operate)
            .or_else(|Full| {
                self.sweep();
                self.at(key, &operate)
            })
            .map_err(|Full| self.room.error())
    }

    /// Removes expired records of all shards, up to a number, and holds one lock at a time.
    fn sweep(&self) {
        let now = Instant::now();
        for shard in self.shards.iter() {
            lock(shard).sweep(now, SWEEP_WHEN_FULL);
        }
    }

    fn shard(&self, key: &RecordKey) -> MutexGuard<'_, Shard> {
        lock(&self.shards[key.shard(SHARDS)])
    }
}

/// No operation leaves a shard half changed, so a poisoned lock still guards whole records.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Backend for MemoryBackend {
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        self.with_room(key, |shard, now| {
            if let Some(Entry { state, .. }) = shard.live(key, now) {
                let is_ours = matches!(state, State::Claimed { claim: held, .. } if held.token == claim.token);
                return Ok(if is_ours {
                    Acquisition::Acquired
                } else {
                    Acquisition::Existing(state.record(now))
                });
            }
            shard.sweep(now, SWEEP);
            shard.put_claim(key, claim, None, now)?;
            Ok(Acquisition::Acquired)
        })
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        self.with_room(key, |shard, now| {
            let steps = match shard.live(key, now).map(|entry| &mut entry.state) {
                Some(State::Claimed { claim: held, .. }) if held.token == claim.token => {
                    return Ok(Acquisition::Acquired);
                }
                Some(State::Claimed {
                    claim: held,
                    lapses,
                    steps,
                }) if *held == *lapsed && *lapses <= now => held.has_steps.then(|| steps.clone()),
                Some(State::Parked { claim: held, steps }) if *held == *lapsed => Some(steps.clone()),
                Some(state) => return Ok(Acquisition::Existing(state.record(now))),
                None => None,
            };
            shard.put_claim(key, claim, steps, now)?;
            Ok(Acquisition::Acquired)
        })
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        Ok(self.at(key, |shard, now| match shard.owned(key, claim.token, now) {
            Some(Entry {
                state: State::Claimed {
                    claim: held, lapses, ..
                },
                expires,
                ..
            }) => {
                *lapses = now + held.lease;
                *expires = *lapses + held.ttl;
                Fenced::Applied
            }
            _ => Fenced::Superseded,
        }))
    }

    async fn complete(
        &self,
        key: &RecordKey,
        claim: &Claim,
        completion: &Completion,
        ttl: Duration,
    ) -> Result<Fenced, BackendError> {
        Ok(self.at(key, |shard, now| {
            let Some(Entry { state, expires, .. }) = shard.owned(key, claim.token, now) else {
                return Fenced::Superseded;
            };
            let held = match state {
                State::Parked { .. } => return Fenced::Superseded,
                State::Completed { .. } => return Fenced::Applied,
                State::Claimed { claim: held, .. } => held.clone(),
            };
            let before = record_bytes(key, state);
            *state = State::Completed {
                claim: held,
                completion: completion.clone(),
            };
            *expires = now + ttl;
            let after = record_bytes(key, state);
            shard.room.change(before, after);
            shard.sweep_in_time(key, ttl);
            shard.wake(key);
            Fenced::Applied
        }))
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        Ok(self.at(key, |shard, now| match shard.owned(key, claim.token, now) {
            Some(Entry {
                state: State::Claimed { .. },
                ..
            }) => {
                shard.remove(key);
                shard.wake(key);
                Fenced::Applied
            }
            _ => Fenced::Superseded,
        }))
    }

    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, BackendError> {
        Ok(self.at(key, |shard, now| {
            shard.live(key, now).map(|entry| entry.state.record(now))
        }))
    }

    async fn check(&self) -> Result<(), BackendError> {
        self.room
            .check()
            .or_else(|Full| {
                self.sweep();
                self.room.check()
            })
            .map_err(|Full| self.room.error())
    }

    fn is_in_process(&self) -> bool {
        true
    }

    fn steps(&self) -> Option<StepStore<'_>> {
        Some(StepStore::of(self))
    }

    fn inspector(&self) -> Option<Inspector<'_>> {
        Some(Inspector::of(self))
    }

    async fn changed(&self, key: &RecordKey) -> Result<Changed, BackendError> {
        Ok(self.wait(key))
    }
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend")
            .field("len", &self.len())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
