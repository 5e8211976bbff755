//! The requests that wait for the end of a claim.

use std::sync::Arc;

use tokio::sync::Notify;

use super::{MemoryBackend, Shard};
use crate::{Changed, RecordKey};

/// The requests that wait for the end of one claim.
#[derive(Default)]
pub(super) struct Waiters {
    pub(super) count: usize,
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

impl Shard {
    /// Wakes the requests that wait for the end of the claim on `key`.
    pub(super) fn wake(&self, key: &RecordKey) {
        if let Some(waiters) = self.waiters.get(key) {
            waiters.ended.notify_waiters();
        }
    }
}

impl MemoryBackend {
    /// Adds a waiter for the end of the claim on `key`.
    pub(super) fn wait(&self, key: &RecordKey) -> Changed {
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
        Changed::new(async move {
            ended.await;
            drop(waiter);
        })
    }
}
