//! The steps of the records in memory.

use bytes::Bytes;

use super::MemoryBackend;
use super::room::record_bytes;
use super::shard::{Entry, State};
use crate::steps::{RecordedSteps, StepBackend};
use crate::{BackendError, BackendErrorKind, Claim, Fenced, RecordKey};

/// The steps of one record. A record without steps has no allocation for them.
pub(super) type Steps = Vec<(Box<str>, Bytes)>;

#[cfg(test)]
impl MemoryBackend {
    /// Loses the steps of a record, and keeps the record.
    pub(crate) fn forget_steps(&self, key: &RecordKey) {
        self.at(key, |shard, _| {
            if let Some(State::Claimed { steps, .. } | State::Parked { steps, .. }) =
                shard.entries.get_mut(key).map(|entry| &mut entry.state)
            {
                steps.clear();
            }
        });
    }
}

impl StepBackend for MemoryBackend {
    async fn record_step(
        &self,
        key: &RecordKey,
        claim: &Claim,
        name: &str,
        step: &Bytes,
    ) -> Result<Fenced, BackendError> {
        self.at(key, |shard, now| {
            let Some(Entry { state, expires, .. }) = shard.owned(key, claim.token, now) else {
                return Ok(Fenced::Superseded);
            };
            let before = record_bytes(key, state);
            let State::Claimed {
                claim: held,
                lapses,
                steps,
            } = state
            else {
                return Ok(Fenced::Superseded);
            };
            if (claim.has_steps || held.has_steps) && steps.is_empty() {
                let context = "the steps of the record are gone";
                return Err(BackendError::new(BackendErrorKind::Unreadable, context).not_written());
            }
            match steps.iter_mut().find(|(known, _)| **known == *name) {
                Some((_, recorded)) => *recorded = step.clone(),
                None => steps.push((name.into(), step.clone())),
            }
            held.has_steps = true;
            *lapses = now + held.lease;
            *expires = *lapses + held.ttl;
            let after = record_bytes(key, state);
            shard.room.change(before, after);
            Ok(Fenced::Applied)
        })
    }

    async fn read_steps(&self, key: &RecordKey, claim: &Claim) -> Result<Option<RecordedSteps>, BackendError> {
        Ok(self.at(key, |shard, now| match shard.owned(key, claim.token, now) {
            Some(Entry {
                state: State::Claimed { steps, .. },
                ..
            }) => Some(
                steps
                    .iter()
                    .map(|(name, step)| (name.to_string(), step.clone()))
                    .collect(),
            ),
            _ => None,
        }))
    }

    async fn park(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        Ok(self.at(key, |shard, now| {
            let Some(Entry { state, expires, .. }) = shard.owned(key, claim.token, now) else {
                return Fenced::Superseded;
            };
            match state {
                State::Completed { .. } => return Fenced::Superseded,
                State::Parked { .. } => return Fenced::Applied,
                State::Claimed { steps, .. } if steps.is_empty() => shard.remove(key),
                State::Claimed { claim: held, steps, .. } => {
                    *expires = now + held.ttl;
                    *state = State::Parked {
                        claim: held.clone(),
                        steps: std::mem::take(steps),
                    };
                }
            }
            shard.wake(key);
            Fenced::Applied
        }))
    }
}
