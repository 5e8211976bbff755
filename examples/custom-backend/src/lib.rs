//! A backend of one's own: every record in one table behind one lock.
//!
//! It owns a table and what the contract of [`Backend`] asks of it, and nothing more. A real one would send each of
//! these operations to a store that makes it atomic; here a lock does. The test at the end holds it to the contract.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use idem_core::{Acquisition, Backend, BackendError, Changed, Claim, Completion, Fenced, Record, RecordKey};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Records in a table.
#[derive(Debug, Default)]
pub struct TableBackend {
    rows: Mutex<HashMap<RecordKey, Row>>,
    /// Wakes whoever waits, for whichever record; they look for themselves.
    ended: Arc<Notify>,
}

#[derive(Debug)]
struct Row {
    claim: Claim,
    /// When the lease lapses; or, once completed, when the row expires.
    until: Instant,
    completion: Option<Completion>,
}

impl Row {
    fn claimed(claim: &Claim) -> Self {
        Self {
            claim: claim.clone(),
            until: Instant::now() + claim.lease,
            completion: None,
        }
    }

    fn is_expired(&self) -> bool {
        let kept = if self.completion.is_some() {
            self.until
        } else {
            self.until + self.claim.ttl
        };
        kept <= Instant::now()
    }

    fn record(&self) -> Record {
        match &self.completion {
            Some(completion) => Record::Completed {
                fingerprint: self.claim.fingerprint,
                completion: completion.clone(),
            },
            None => Record::Claimed {
                claim: self.claim.clone(),
                remaining: self.until.saturating_duration_since(Instant::now()),
            },
        }
    }

    /// The answer to a claim that meets this row: it is refused, unless the row is its own, from a call whose answer was lost.
    fn answer(&self, claim: &Claim) -> Acquisition {
        if self.is_claimed_by(claim) {
            Acquisition::Acquired
        } else {
            Acquisition::Existing(self.record())
        }
    }

    fn is_claimed_by(&self, claim: &Claim) -> bool {
        self.claim.token == claim.token && self.completion.is_none()
    }
}

impl TableBackend {
    /// The table, without `key` if that has expired.
    fn rows(&self, key: &RecordKey) -> MutexGuard<'_, HashMap<RecordKey, Row>> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if rows.get(key).is_some_and(Row::is_expired) {
            rows.remove(key);
        }
        rows
    }
}

impl Backend for TableBackend {
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        let mut rows = self.rows(key);
        if let Some(row) = rows.get(key) {
            return Ok(row.answer(claim));
        }
        rows.insert(key.clone(), Row::claimed(claim));
        Ok(Acquisition::Acquired)
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        let mut rows = self.rows(key);
        let is_lapsed = |row: &Row| row.is_claimed_by(lapsed) && row.until <= Instant::now();
        if let Some(row) = rows.get(key).filter(|row| !is_lapsed(row)) {
            return Ok(row.answer(claim));
        }
        rows.insert(key.clone(), Row::claimed(claim));
        Ok(Acquisition::Acquired)
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        Ok(match self.rows(key).get_mut(key) {
            Some(row) if row.is_claimed_by(claim) => {
                row.until = Instant::now() + claim.lease;
                Fenced::Applied
            }
            _ => Fenced::Superseded,
        })
    }

    async fn complete(
        &self,
        key: &RecordKey,
        claim: &Claim,
        completion: &Completion,
        ttl: Duration,
    ) -> Result<Fenced, BackendError> {
        match self.rows(key).get_mut(key) {
            Some(row) if row.is_claimed_by(claim) => {
                row.until = Instant::now() + ttl;
                row.completion = Some(completion.clone());
            }
            // Repeated: its answer may have been lost.
            Some(row) if row.claim.token == claim.token => return Ok(Fenced::Applied),
            _ => return Ok(Fenced::Superseded),
        }
        self.ended.notify_waiters();
        Ok(Fenced::Applied)
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        let mut rows = self.rows(key);
        if !rows.get(key).is_some_and(|row| row.is_claimed_by(claim)) {
            return Ok(Fenced::Superseded);
        }
        rows.remove(key);
        self.ended.notify_waiters();
        Ok(Fenced::Applied)
    }

    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, BackendError> {
        Ok(self.rows(key).get(key).map(Row::record))
    }

    async fn changed(&self, _key: &RecordKey) -> Result<Changed, BackendError> {
        Ok(Changed::new(self.ended.clone().notified_owned()))
    }

    async fn check(&self) -> Result<(), BackendError> {
        Ok(())
    }
}

#[cfg(test)]
mod contract {
    use super::TableBackend;

    idem_core::conformance!(async { TableBackend::default() });
}
