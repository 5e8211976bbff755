//! The in-memory backend: for development, tests, and services that run as one process.
//!
//! Owns its records, and loses them when they expire or the process ends. Does not reach other processes: two servers
//! with a `MemoryBackend` each may run the same request once each.

use std::collections::{BTreeSet, hash_map};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::key::ByRecord;
use crate::{
    Acquisition, Backend, BackendError, Changed, Claim, Completion, Fenced, Fingerprint, Record, RecordKey, Token,
};

const SHARDS: usize = 64;

/// How many records a claim checks for expiry, at most. A claim adds one record and may remove four, so that expired records
/// never pile up.
const SWEEP: usize = 4;

/// Records in this process's memory; clones share them.
///
/// It uses tokio's clock, so a paused clock pauses leases and expiry too. Expired records are never returned. Later claims
/// remove them from memory, a few at a time.
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
}

#[derive(Default)]
struct Shard {
    entries: ByRecord<Entry>,
    /// The keys of the entries, by their `swept` time.
    expiries: BTreeSet<(Instant, RecordKey)>,
    waiters: ByRecord<Waiters>,
}

/// The requests that wait for the end of one claim.
#[derive(Default)]
struct Waiters {
    count: usize,
    ended: Arc<Notify>,
}

/// Counts one waiter. Dropping the last one removes the entry in `waiters`.
struct Waiter {
    backend: MemoryBackend,
    key: RecordKey,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut shard = self.backend.shard(&self.key);
        if let Some(waiters) = shard.waiters.get_mut(&self.key) {
            waiters.count -= 1;
            if waiters.count == 0 {
                shard.waiters.remove(&self.key);
            }
        }
    }
}

struct Entry {
    state: State,
    expires: Instant,
    /// When a sweep checks whether the entry has expired: its position in `expiries`.
    ///
    /// Completing or renewing a claim changes `expires` and leaves `swept` as it is, which saves an update of `expiries`. If
    /// a sweep finds that the entry expires later, it sets `swept` to that time.
    swept: Instant,
}

enum State {
    Claimed {
        claim: Claim,
        lapses: Instant,
    },
    Completed {
        token: Token,
        fingerprint: Fingerprint,
        completion: Completion,
    },
}

impl MemoryBackend {
    /// An empty backend.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
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

    fn shard(&self, key: &RecordKey) -> MutexGuard<'_, Shard> {
        lock(&self.shards[key.shard(SHARDS)])
    }
}

/// No operation leaves a shard half changed, so a poisoned lock still guards whole records.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    /// The entry under `key`, if it has not expired.
    fn live(&mut self, key: &RecordKey, now: Instant) -> Option<&mut Entry> {
        self.entries.get_mut(key).filter(|entry| entry.expires > now)
    }

    /// The entry under `key`, if it is the claim with this `token` or the completion of that claim.
    fn owned(&mut self, key: &RecordKey, token: Token, now: Instant) -> Option<&mut Entry> {
        self.live(key, now).filter(|entry| entry.state.token() == token)
    }

    fn put_claim(&mut self, key: &RecordKey, claim: &Claim, now: Instant) {
        let (state, expires) = State::claimed(claim, now);
        let swept = expires;
        let entry = Entry { state, expires, swept };
        match self.entries.entry(key.clone()) {
            hash_map::Entry::Vacant(vacant) => {
                self.expiries.insert((swept, vacant.key().clone()));
                vacant.insert(entry);
            }
            hash_map::Entry::Occupied(mut occupied) => {
                let old = std::mem::replace(occupied.get_mut(), entry);
                self.expiries.remove(&(old.swept, occupied.key().clone()));
                self.expiries.insert((swept, occupied.key().clone()));
            }
        }
    }

    fn remove(&mut self, key: &RecordKey) {
        if let Some(old) = self.entries.remove(key) {
            self.expiries.remove(&(old.swept, key.clone()));
        }
    }

    fn sweep(&mut self, now: Instant) {
        for _ in 0..SWEEP {
            match self.expiries.first() {
                Some((swept, _)) if *swept <= now => {}
                _ => return,
            }
            let Some((_, key)) = self.expiries.pop_first() else {
                return;
            };
            if let hash_map::Entry::Occupied(mut entry) = self.entries.entry(key) {
                if entry.get().expires <= now {
                    entry.remove();
                } else {
                    let again = entry.get().expires;
                    entry.get_mut().swept = again;
                    self.expiries.insert((again, entry.key().clone()));
                }
            }
        }
    }

    /// Wakes the requests that wait for the end of the claim on `key`.
    fn wake(&self, key: &RecordKey) {
        if let Some(waiters) = self.waiters.get(key) {
            waiters.ended.notify_waiters();
        }
    }
}

impl State {
    /// The state of a claim whose lease starts `now`, and the time at which it expires.
    fn claimed(claim: &Claim, now: Instant) -> (Self, Instant) {
        let lapses = now + claim.lease;
        let expires = lapses + claim.ttl;
        let claim = claim.clone();
        (Self::Claimed { claim, lapses }, expires)
    }

    fn token(&self) -> Token {
        match self {
            Self::Claimed { claim, .. } => claim.token,
            Self::Completed { token, .. } => *token,
        }
    }

    fn record(&self, now: Instant) -> Record {
        match self {
            Self::Claimed { claim, lapses } => Record::Claimed {
                claim: claim.clone(),
                remaining: lapses.saturating_duration_since(now),
            },
            Self::Completed {
                fingerprint,
                completion,
                ..
            } => Record::Completed {
                fingerprint: *fingerprint,
                completion: completion.clone(),
            },
        }
    }
}

impl Backend for MemoryBackend {
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        Ok(self.at(key, |shard, now| {
            if let Some(Entry { state, .. }) = shard.live(key, now) {
                let is_ours = matches!(state, State::Claimed { claim: held, .. } if held.token == claim.token);
                return if is_ours {
                    Acquisition::Acquired
                } else {
                    Acquisition::Existing(state.record(now))
                };
            }
            shard.sweep(now);
            shard.put_claim(key, claim, now);
            Acquisition::Acquired
        }))
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        Ok(self.at(key, |shard, now| {
            let record = shard.live(key, now).map(|entry| entry.state.record(now));
            match record {
                Some(Record::Claimed { claim: held, .. }) if held.token == claim.token => return Acquisition::Acquired,
                Some(Record::Claimed { claim: held, remaining }) if held == *lapsed && remaining.is_zero() => {}
                Some(record) => return Acquisition::Existing(record),
                None => {}
            }
            shard.put_claim(key, claim, now);
            Acquisition::Acquired
        }))
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        Ok(self.at(key, |shard, now| match shard.owned(key, claim.token, now) {
            Some(Entry {
                state: state @ State::Claimed { .. },
                expires,
                ..
            }) => {
                (*state, *expires) = State::claimed(claim, now);
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
            if matches!(state, State::Claimed { .. }) {
                *state = State::Completed {
                    token: claim.token,
                    fingerprint: claim.fingerprint,
                    completion: completion.clone(),
                };
                *expires = now + ttl;
                shard.wake(key);
            }
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
        Ok(())
    }

    fn is_in_process(&self) -> bool {
        true
    }

    async fn changed(&self, key: &RecordKey) -> Result<Changed, BackendError> {
        let ended = self.at(key, |shard, _| {
            let waiters = shard.waiters.entry(key.clone()).or_default();
            waiters.count += 1;
            // An owned `Notified` counts as a waiter from here on, although it is not polled yet.
            waiters.ended.clone().notified_owned()
        });
        let waiter = Waiter {
            backend: self.clone(),
            key: key.clone(),
        };
        Ok(Changed::new(async move {
            ended.await;
            drop(waiter);
        }))
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
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
