//! Reading a stored value as a record.
//!
//! Owns the decision whether a stored claim is live, which needs the time that its key has left. Does not own the binary form:
//! [`record`].

use std::time::Duration;

use bytes::Bytes;
use idem_core::{BackendError, BackendErrorKind, Claim, Completion, Record};

use crate::backend::{LOOKS, RedisBackend, busy};
use crate::record::{self, Stored, millis};

/// The state of a stored value.
enum Found {
    /// The value has gone since it was read.
    Gone,
    Live(Record),
    /// A lapsed claim, provided that the value has not changed since it was read.
    Doubtful(Record),
}

impl RedisBackend {
    /// Decodes the stored `bytes` of a record; `None` if the record has gone since they were read.
    ///
    /// A lease is live while the Redis key's time to live is at least the claim's `ttl`. A shorter time may also mean that the
    /// record was completed in between. So a claim counts as lapsed only if it is still stored after the time to live was read.
    pub(crate) async fn examine(&self, name: &str, bytes: Vec<u8>) -> Result<Option<Record>, BackendError> {
        let mut bytes = Bytes::from(bytes);
        // The token of a completed record whose payload was missing.
        let mut gone = None;
        for _ in 0..LOOKS {
            let found = match record::decode(&bytes)? {
                Stored::Claimed(claim) => self.remaining(name, &claim).await?,
                Stored::Completed {
                    fingerprint,
                    completion,
                } => {
                    return Ok(Some(Record::Completed {
                        fingerprint,
                        completion,
                    }));
                }
                Stored::CompletedBeside {
                    fingerprint,
                    token,
                    len,
                } => {
                    let completion = match self.reads.read(&self.connection, name, token, len).await? {
                        Some(payload) => Completion::Stored(payload),
                        None if gone == Some(token) => {
                            self.reads.warn_of_gone(name, token);
                            Completion::NotStored
                        }
                        // The record and its payload may both have expired since the record was read.
                        None => {
                            gone = Some(token);
                            match self.get(name).await? {
                                Some(now) => bytes = now.into(),
                                None => return Ok(None),
                            }
                            continue;
                        }
                    };
                    return Ok(Some(Record::Completed {
                        fingerprint,
                        completion,
                    }));
                }
            };
            let lapsed = match found {
                Found::Gone => return Ok(None),
                Found::Live(record) => return Ok(Some(record)),
                Found::Doubtful(lapsed) => lapsed,
            };
            match self.get(name).await? {
                None => return Ok(None),
                Some(same) if same == bytes => return Ok(Some(lapsed)),
                Some(changed) => bytes = changed.into(),
            }
        }
        Err(busy())
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, BackendError> {
        let mut get = redis::cmd("GET");
        get.arg(name);
        self.connection.query("reading a record", name, &get).await
    }

    /// Reads the rest of the lease of a claim that was just read.
    async fn remaining(&self, name: &str, claim: &Claim) -> Result<Found, BackendError> {
        let command = redis::cmd("PTTL").arg(name).to_owned();
        let left: i64 = self
            .connection
            .query("asking how long a lease has left", name, &command)
            .await?;
        let left = match left {
            -2 => return Ok(Found::Gone),
            ..0 => {
                let context = "a claim has lost its expiry; delete it if nobody runs under it";
                return Err(BackendError::new(BackendErrorKind::Unreadable, context));
            }
            left => left.unsigned_abs(),
        };
        let claim = claim.clone();
        Ok(match left.checked_sub(millis(claim.ttl)) {
            // In its last millisecond the lease is still live; zero would mean lapsed.
            Some(remaining) => Found::Live(Record::Claimed {
                claim,
                remaining: Duration::from_millis(remaining.max(1)),
            }),
            None => Found::Doubtful(Record::Claimed {
                claim,
                remaining: Duration::ZERO,
            }),
        })
    }
}
