//! The backend of one process: for development, tests, and services that run once.
//!
//! Owns its records and forgets them when they expire or the process ends. Does not reach other processes: two
//! servers with a `MemoryBackend` each run a duplicate twice.

use std::collections::{BTreeSet, HashMap, hash_map};
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::{
    Acquisition, Backend, BackendError, Changed, Claim, Completion, Fenced, Fingerprint, Record, RecordKey, Token,
};

const SHARDS: usize = 64;

/// How many records a write looks at at most whether they have expired, to remove them: more than it adds, so that expired
/// ones never pile up.
const SWEEP: usize = 4;

/// Records in this process's memory; clones share them.
///
/// Time is tokio's, so a paused clock pauses leases and expiry too. Expired records are never returned, and are
/// removed a few at a time by claims that come a lease later.
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
    hasher: RandomState,
}

#[derive(Default)]
struct Shard {
    entries: HashMap<Place, Entry, BuildHasherDefault<AsIs>>,
    /// The same places by the time that they are swept.
    expiries: BTreeSet<(Instant, Place)>,
    waiters: HashMap<Place, Waiters, BuildHasherDefault<AsIs>>,
}

/// A key with its hash, which is taken once for each operation and not at every look.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    hash: u64,
    key: RecordKey,
}

impl Place {
    fn shard(&self) -> usize {
        // Not the lowest bits: by those, the places in one shard's maps are told apart.
        let [high, ..] = (self.hash >> 24).to_le_bytes();
        usize::from(high) % SHARDS
    }
}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Takes the hash of a [`Place`] as it is.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Those who wait for the end of one claim.
#[derive(Default)]
struct Waiters {
    count: usize,
    ended: Arc<Notify>,
}

/// One waiter's share. Dropped, it leaves nothing behind.
struct Waiter {
    backend: MemoryBackend,
    place: Place,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut shard = self.backend.shard(&self.place);
        if let Some(waiters) = shard.waiters.get_mut(&self.place) {
            waiters.count -= 1;
            if waiters.count == 0 {
                shard.waiters.remove(&self.place);
            }
        }
    }
}

struct Entry {
    state: State,
    expires: Instant,
    /// When it is looked at whether it has expired: its place among the expiries. Most records expire a lease before
    /// that, for they are completed; those that expire later get another place then.
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
            hasher: RandomState::new(),
        }
    }

    /// How many records are held, expired ones that were not yet removed included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).entries.len()).sum()
    }

    /// How many requests wait for the end of a claim.
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
    fn at<T>(&self, key: &RecordKey, operate: impl FnOnce(&mut Shard, Place, Instant) -> T) -> T {
        let place = Place {
            hash: self.hasher.hash_one(key),
            key: key.clone(),
        };
        let mut shard = self.shard(&place);
        let now = Instant::now();
        operate(&mut shard, place, now)
    }

    fn shard(&self, place: &Place) -> MutexGuard<'_, Shard> {
        lock(&self.shards[place.shard()])
    }
}

/// No operation leaves a shard half changed, so a poisoned lock still guards whole records.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    /// What is there and has not expired.
    fn live(&mut self, place: &Place, now: Instant) -> Option<&mut Entry> {
        self.entries.get_mut(place).filter(|entry| entry.expires > now)
    }

    /// What is there under `token`: a claim, or its completion.
    fn owned(&mut self, place: &Place, token: Token, now: Instant) -> Option<&mut Entry> {
        self.live(place, now).filter(|entry| entry.state.token() == token)
    }

    fn put_claim(&mut self, place: Place, claim: &Claim, now: Instant) {
        let (state, expires) = State::claimed(claim, now);
        let swept = expires;
        let entry = Entry { state, expires, swept };
        match self.entries.entry(place) {
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

    fn remove(&mut self, place: &Place) {
        if let Some(old) = self.entries.remove(place) {
            self.expiries.remove(&(old.swept, place.clone()));
        }
    }

    fn sweep(&mut self, now: Instant) {
        for _ in 0..SWEEP {
            match self.expiries.first() {
                Some((swept, _)) if *swept <= now => {}
                _ => return,
            }
            let Some((_, place)) = self.expiries.pop_first() else {
                return;
            };
            if let hash_map::Entry::Occupied(mut entry) = self.entries.entry(place) {
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

    /// Wakes those who wait for the end of the claim at `place`.
    fn wake(&self, place: &Place) {
        if let Some(waiters) = self.waiters.get(place) {
            waiters.ended.notify_waiters();
        }
    }
}

impl State {
    /// A claim from now on, and when it expires.
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
        Ok(self.at(key, |shard, place, now| {
            if let Some(Entry { state, .. }) = shard.live(&place, now) {
                let is_ours = matches!(state, State::Claimed { claim: held, .. } if held.token == claim.token);
                if !is_ours {
                    return Acquisition::Existing(state.record(now));
                }
            }
            shard.sweep(now);
            shard.put_claim(place, claim, now);
            Acquisition::Acquired
        }))
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        Ok(self.at(key, |shard, place, now| {
            let record = shard.live(&place, now).map(|entry| entry.state.record(now));
            match record {
                Some(Record::Claimed { claim: held, remaining })
                    if held.token == claim.token || (held == *lapsed && remaining.is_zero()) => {}
                Some(record) => return Acquisition::Existing(record),
                None => {}
            }
            shard.put_claim(place, claim, now);
            Acquisition::Acquired
        }))
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        Ok(
            self.at(key, |shard, place, now| match shard.owned(&place, claim.token, now) {
                Some(Entry {
                    state: state @ State::Claimed { .. },
                    expires,
                    ..
                }) => {
                    (*state, *expires) = State::claimed(claim, now);
                    Fenced::Applied
                }
                _ => Fenced::Superseded,
            }),
        )
    }

    async fn complete(&self, key: &RecordKey, claim: &Claim, completion: &Completion) -> Result<Fenced, BackendError> {
        Ok(self.at(key, |shard, place, now| {
            let Some(Entry { state, expires, .. }) = shard.owned(&place, claim.token, now) else {
                return Fenced::Superseded;
            };
            if matches!(state, State::Claimed { .. }) {
                *state = State::Completed {
                    token: claim.token,
                    fingerprint: claim.fingerprint,
                    completion: completion.clone(),
                };
                *expires = now + claim.ttl;
                shard.wake(&place);
            }
            Fenced::Applied
        }))
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        Ok(
            self.at(key, |shard, place, now| match shard.owned(&place, claim.token, now) {
                Some(Entry {
                    state: State::Claimed { .. },
                    ..
                }) => {
                    shard.remove(&place);
                    shard.wake(&place);
                    Fenced::Applied
                }
                _ => Fenced::Superseded,
            }),
        )
    }

    async fn check(&self) -> Result<(), BackendError> {
        Ok(())
    }

    async fn changed(&self, key: &RecordKey) -> Result<Changed, BackendError> {
        let (ended, place) = self.at(key, |shard, place, _| {
            let waiters = shard.waiters.entry(place.clone()).or_default();
            waiters.count += 1;
            // From here on it is told, though it is not awaited yet.
            (waiters.ended.clone().notified_owned(), place)
        });
        let waiter = Waiter {
            backend: self.clone(),
            place,
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
