//! What an operator sees and settles of the records in memory.

use tokio::time::Instant;

use super::room::record_bytes;
use super::shard::{Entry, State};
use super::{MemoryBackend, lock};
use crate::inspect::{
    Cursor, Finding, Inspect, Listed, LiveClaim, Page, RecordDetails, RecordVersion, Selection, Settled, Settlement,
    StepChange,
};
use crate::steps::RecordedSteps;
use crate::{BackendError, BackendErrorKind, Claim, RecordKey};

impl Inspect for MemoryBackend {
    /// Goes through one shard after the other, in the order of the keys.
    async fn scan(&self, selection: &Selection, after: Option<&Cursor>, limit: usize) -> Result<Page, BackendError> {
        let (first, mut from) = read_cursor(after)?;
        let now = Instant::now();
        let mut page = Page {
            commands: 1,
            ..Page::default()
        };
        for (index, shard) in self.shards.iter().enumerate().skip(first) {
            let shard = lock(shard);
            page.looked_at += shard.entries.len() as u64;
            let live = |(key, entry): &(&RecordKey, &Entry)| entry.expires > now && selection.matches(key);
            let mut found: Vec<_> = shard.entries.iter().filter(live).collect();
            found.sort_by_key(|(key, _)| *key);
            for (key, entry) in found {
                if from.as_ref().is_some_and(|from| key.as_str() <= from.as_str()) {
                    continue;
                }
                if page.records.len() == limit {
                    page.next = Some(cursor(index, from.as_deref()));
                    return Ok(page);
                }
                page.records.push(Listed::Record(entry.details(key, now).summary));
                from = Some(key.to_string());
            }
            from = None;
        }
        Ok(page)
    }

    async fn inspect(&self, key: &RecordKey) -> Result<Option<RecordDetails>, BackendError> {
        Ok(self.at(key, |shard, now| {
            shard.live(key, now).map(|entry| entry.details(key, now))
        }))
    }

    async fn settle(
        &self,
        key: &RecordKey,
        version: RecordVersion,
        settlement: &Settlement,
        live: LiveClaim,
    ) -> Result<Settled, BackendError> {
        Ok(self.at(key, |shard, now| {
            let Some(entry) = shard.live(key, now) else {
                return Settled::Changed;
            };
            let there = entry.details(key, now).version();
            if settlement.leaves().is_some_and(|left| left.is_of_same_claim(&there)) {
                return Settled::Applied;
            }
            if there != version {
                return Settled::Changed;
            }
            if let State::Claimed { lapses, .. } = entry.state
                && live == LiveClaim::Refuse
                && lapses > now
            {
                return Settled::Live(lapses - now);
            }
            let before = record_bytes(key, &entry.state);
            let is_kept = settled(entry, settlement, now);
            let (after, ttl) = (record_bytes(key, &entry.state), entry.expires - now);
            shard.room.change(before, after);
            if is_kept {
                shard.sweep_in_time(key, ttl);
            } else {
                shard.remove(key);
            }
            shard.wake(key);
            Settled::Applied
        }))
    }

    async fn diagnose(&self) -> Result<Vec<Finding>, BackendError> {
        let process = "the records are in the memory of this process, and end with it";
        let (bytes, max) = (self.room.taken(), self.room.max());
        let room = format!("the records take {bytes} of {max} bytes");
        let room = match self.room.check() {
            Ok(()) => Finding::good("memory", room),
            Err(_full) => Finding::failing("memory", room + ", and new claims are refused"),
        };
        Ok(vec![Finding::warning("persistence", process), room])
    }
}

/// The shard where a scan goes on, and the last key of it that was returned.
fn cursor(shard: usize, last: Option<&str>) -> Cursor {
    Cursor::new(format!("{shard}/{}", last.unwrap_or_default()))
}

fn read_cursor(after: Option<&Cursor>) -> Result<(usize, Option<String>), BackendError> {
    let Some(after) = after else { return Ok((0, None)) };
    let parts = after.as_str().split_once('/');
    let read = parts.and_then(|(shard, last)| Some((shard.parse().ok()?, last)));
    let Some((shard, last)) = read else {
        return Err(BackendError::new(
            BackendErrorKind::Config,
            "the cursor is not one of this store",
        ));
    };
    Ok((shard, (!last.is_empty()).then(|| last.to_owned())))
}

/// Changes the entry in place; `false` if the record is to be removed.
fn settled(entry: &mut Entry, settlement: &Settlement, now: Instant) -> bool {
    match settlement {
        Settlement::Forget => return false,
        Settlement::Rerun { token, began_at, step } => {
            let (State::Claimed { claim, steps, .. } | State::Parked { claim, steps }) = &mut entry.state else {
                return false;
            };
            match step {
                Some(StepChange::Done { name, step }) => {
                    steps.retain(|(known, _)| **known != **name);
                    steps.push((name.as_str().into(), step.clone()));
                }
                Some(StepChange::NotDone { name }) => steps.retain(|(known, _)| **known != **name),
                None => {}
            }
            if steps.is_empty() {
                return false;
            }
            let claim = Claim {
                token: *token,
                began_at: *began_at,
                has_steps: true,
                ..claim.clone()
            };
            entry.expires = now + claim.ttl;
            let steps = std::mem::take(steps);
            entry.state = State::Parked { claim, steps };
        }
        Settlement::Complete { token, completion, ttl } => {
            let claim = Claim {
                token: *token,
                ..entry.state.claim().clone()
            };
            entry.expires = now + *ttl;
            entry.state = State::Completed {
                claim,
                completion: completion.clone(),
            };
        }
    }
    true
}

impl Entry {
    fn details(&self, key: &RecordKey, now: Instant) -> RecordDetails {
        let steps: RecordedSteps = match &self.state {
            State::Claimed { steps, .. } | State::Parked { steps, .. } => {
                let step = |(name, step): &(Box<str>, bytes::Bytes)| (name.to_string(), step.clone());
                steps.iter().map(step).collect()
            }
            State::Completed { .. } => RecordedSteps::new(),
        };
        let expires_in = self.expires.saturating_duration_since(now);
        RecordDetails::of(key, self.state.claim(), self.state.record(now), steps, expires_in)
    }
}
