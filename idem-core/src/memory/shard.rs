//! One part of the table of records.
//!
//! Owns the records of some keys, and when they expire. Does not own the lock around them, nor what an operation may do with a
//! record.

use std::collections::{BTreeSet, hash_map};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::room::{Full, Room, record_bytes};
use super::steps::Steps;
use super::waiters::Waiters;
use crate::key::ByRecord;
use crate::{Claim, Completion, Record, RecordKey, Token};

/// A completed record leaves memory at most this part of its `ttl` late, if claims come.
pub(super) const LATE: u32 = 8;

pub(super) struct Shard {
    pub(super) room: Arc<Room>,
    pub(super) entries: ByRecord<Entry>,
    /// The keys of the entries, by their `swept` time.
    expiries: BTreeSet<(Instant, RecordKey)>,
    pub(super) waiters: ByRecord<Waiters>,
}

pub(super) struct Entry {
    pub(super) state: State,
    pub(super) expires: Instant,
    /// When a sweep checks whether the entry has expired: its position in `expiries`.
    ///
    /// Renewing a claim changes `expires` and leaves `swept` as it is, which saves an update of `expiries`. If a sweep finds that
    /// the entry expires later, it sets `swept` to that time. So does completing, unless the sweep would come late ([`LATE`]).
    swept: Instant,
}

pub(super) enum State {
    Claimed {
        claim: Claim,
        lapses: Instant,
        steps: Steps,
    },
    Parked {
        claim: Claim,
        steps: Steps,
    },
    Completed {
        claim: Claim,
        completion: Completion,
    },
}

impl Shard {
    pub(super) fn new(room: Arc<Room>) -> Self {
        Self {
            room,
            entries: ByRecord::default(),
            expiries: BTreeSet::new(),
            waiters: ByRecord::default(),
        }
    }

    /// The entry under `key`, if it has not expired.
    pub(super) fn live(&mut self, key: &RecordKey, now: Instant) -> Option<&mut Entry> {
        self.entries.get_mut(key).filter(|entry| entry.expires > now)
    }

    /// The entry under `key`, if it is the claim with this `token` or the completion of that claim.
    pub(super) fn owned(&mut self, key: &RecordKey, token: Token, now: Instant) -> Option<&mut Entry> {
        self.live(key, now).filter(|entry| entry.state.token() == token)
    }

    /// Puts `claim` with `steps` under `key`, if there is room. A record that it replaces is never smaller: the steps are that
    /// record's.
    pub(super) fn put_claim(
        &mut self,
        key: &RecordKey,
        claim: &Claim,
        steps: Option<Steps>,
        now: Instant,
    ) -> Result<(), Full> {
        let (state, expires) = State::claimed(claim, steps, now);
        let bytes = record_bytes(key, &state);
        let swept = expires;
        let entry = Entry { state, expires, swept };
        match self.entries.entry(key.clone()) {
            hash_map::Entry::Vacant(vacant) => {
                self.room.reserve(bytes)?;
                self.expiries.insert((swept, vacant.key().clone()));
                vacant.insert(entry);
            }
            hash_map::Entry::Occupied(mut occupied) => {
                let old = std::mem::replace(occupied.get_mut(), entry);
                self.room.give_back(record_bytes(key, &old.state) - bytes);
                self.expiries.remove(&(old.swept, occupied.key().clone()));
                self.expiries.insert((swept, occupied.key().clone()));
            }
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &RecordKey) {
        if let Some(old) = self.entries.remove(key) {
            self.room.give_back(record_bytes(key, &old.state));
            self.expiries.remove(&(old.swept, key.clone()));
        }
    }

    /// Sweeps a completed record when it expires, if that is well before the end of its claim.
    pub(super) fn sweep_in_time(&mut self, key: &RecordKey, ttl: Duration) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        if entry.swept > entry.expires + ttl / LATE {
            let old = std::mem::replace(&mut entry.swept, entry.expires);
            self.expiries.remove(&(old, key.clone()));
            self.expiries.insert((entry.expires, key.clone()));
        }
    }

    /// Removes the expired records among the next `most` that are due.
    pub(super) fn sweep(&mut self, now: Instant, most: usize) {
        for _ in 0..most {
            match self.expiries.first() {
                Some((swept, _)) if *swept <= now => {}
                _ => return,
            }
            let Some((_, key)) = self.expiries.pop_first() else {
                return;
            };
            if let hash_map::Entry::Occupied(mut entry) = self.entries.entry(key) {
                if entry.get().expires <= now {
                    self.room.give_back(record_bytes(entry.key(), &entry.get().state));
                    entry.remove();
                } else {
                    let again = entry.get().expires;
                    entry.get_mut().swept = again;
                    self.expiries.insert((again, entry.key().clone()));
                }
            }
        }
    }
}

impl State {
    /// The state of a claim whose lease starts `now`, and the time at which it expires. `steps` are those of the claim that it has
    /// taken over, if that one had some.
    pub(super) fn claimed(claim: &Claim, steps: Option<Steps>, now: Instant) -> (Self, Instant) {
        let lapses = now + claim.lease;
        let expires = lapses + claim.ttl;
        let (has_steps, steps) = (steps.is_some(), steps.unwrap_or_default());
        let claim = Claim {
            has_steps,
            ..claim.clone()
        };
        (Self::Claimed { claim, lapses, steps }, expires)
    }

    pub(super) fn token(&self) -> Token {
        self.claim().token
    }

    pub(super) fn claim(&self) -> &Claim {
        match self {
            Self::Claimed { claim, .. } | Self::Parked { claim, .. } | Self::Completed { claim, .. } => claim,
        }
    }

    pub(super) fn record(&self, now: Instant) -> Record {
        match self {
            Self::Claimed { claim, lapses, .. } => Record::Claimed {
                claim: claim.clone(),
                remaining: lapses.saturating_duration_since(now),
            },
            Self::Parked { claim, .. } => Record::Parked { claim: claim.clone() },
            Self::Completed { claim, completion } => Record::Completed {
                fingerprint: claim.fingerprint,
                completion: completion.clone(),
            },
        }
    }
}

#[cfg(test)]
impl Shard {
    pub(super) fn has_no_expiry(&self) -> bool {
        self.expiries.is_empty()
    }

    /// The bytes of the records that are there.
    pub(super) fn counted(&self) -> usize {
        let bytes = |(key, entry): (&RecordKey, &Entry)| record_bytes(key, &entry.state);
        self.entries.iter().map(bytes).sum()
    }
}
