//! Reading a stored value as a record.
//!
//! Owns the decision whether a stored claim is live, which needs the time that its key has left. Does not own the binary form:
//! [`record`].

use std::time::Duration;

use bytes::Bytes;
use idem_core::{BackendError, BackendErrorKind, Claim, Completion, Record};

use crate::backend::{LOOKS, RedisBackend, busy};
use crate::record::{self, Stored, millis};
use crate::scripts;

impl RedisBackend {
    /// Decodes the stored `bytes` of a record; `None` if the record has gone since they were read.
    ///
    /// A lease is live while the Redis key's time to live is at least the claim's `ttl`.
    pub(crate) async fn examine(&self, name: &str, bytes: Vec<u8>) -> Result<Option<Record>, BackendError> {
        let mut bytes = Bytes::from(bytes);
        // The token of a completed record whose payload was missing.
        let mut gone = None;
        for _ in 0..LOOKS {
            match record::decode(&bytes)? {
                Stored::Claimed(claim) => {
                    if let Some(remaining) = self.remaining(name, &bytes, &claim).await? {
                        return Ok(Some(Record::Claimed { claim, remaining }));
                    }
                }
                Stored::Parked(claim) => return Ok(Some(Record::Parked { claim })),
                Stored::Completed { claim, completion } => {
                    return Ok(Some(Record::Completed {
                        fingerprint: claim.fingerprint,
                        completion,
                    }));
                }
                Stored::CompletedBeside { claim, len } => {
                    let Claim { token, fingerprint, .. } = claim;
                    let completion = match self.reads.read(&self.connection, name, token, len).await? {
                        Some(payload) => Some(Completion::Stored(payload)),
                        None if gone == Some(token) => {
                            self.reads.warn_of_gone(name, token);
                            Some(Completion::NotStored)
                        }
                        // The record and its payload may both have expired since the record was read.
                        None => {
                            gone = Some(token);
                            None
                        }
                    };
                    if let Some(completion) = completion {
                        return Ok(Some(Record::Completed {
                            fingerprint,
                            completion,
                        }));
                    }
                }
            }
            match self.get(name).await? {
                None => return Ok(None),
                Some(now) => bytes = now.into(),
            }
        }
        Err(busy())
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, BackendError> {
        let mut get = redis::cmd("GET");
        get.arg(name);
        self.connection.query("reading a record", name, &get).await
    }

    /// Reads the rest of the lease of `claim`, which was read as `bytes`; `None` if something else is stored by now.
    ///
    /// One script reads both. The time to live alone may be that of the record that has come after the claim.
    async fn remaining(&self, name: &str, bytes: &[u8], claim: &Claim) -> Result<Option<Duration>, BackendError> {
        let mut command = scripts::LEASE.on(name, 1, bytes.len());
        command.arg(bytes);
        let what = "asking how long a lease has left";
        let left: i64 = self.connection.invoke(what, name, &scripts::LEASE, &command).await?;
        if left == scripts::CLAIM_IS_GONE {
            return Ok(None);
        }
        let remaining = rest_of_lease(left, claim).ok_or_else(|| {
            let context = "a claim has lost its expiry; delete it if nobody runs under it";
            BackendError::new(BackendErrorKind::Unreadable, context)
        });
        remaining.map(Some)
    }
}

/// The rest of the lease of `claim`, whose key has `left` milliseconds left; `None` if the key never expires.
pub(crate) fn rest_of_lease(left: i64, claim: &Claim) -> Option<Duration> {
    let left = u64::try_from(left).ok()?;
    // In its last millisecond the lease is still live; zero would mean lapsed.
    let remaining = left.checked_sub(millis(claim.ttl)).map(|left| left.max(1));
    Some(Duration::from_millis(remaining.unwrap_or_default()))
}
