//! A backend that writes down the calls that pass through it.
//!
//! Owns when a call counts as open. Payloads are replaced by their digests, so that a history stays small.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{Call, CallId, Event, Reply, Report};
use crate::inspect::{Inspector, STEP_HEAD_LEN};
use crate::steps::StepStore;
use crate::{Acquisition, Backend, BackendError, Changed, Claim, Completion, Fenced, Record, RecordKey};

/// Payloads of more bytes than a digest has are replaced by their digest.
const DIGEST_LEN: usize = 32;

/// Where recorders write their events.
pub trait Log: fmt::Debug + Send + Sync + 'static {
    /// The time, by a clock that all recorders of the history share and that is never set.
    fn now(&self) -> Duration;

    /// Adds an event. Returns only when the event can no longer be lost with the process.
    fn write(&self, event: Event);
}

/// A [`Log`] in the memory of this process; clones share it. Uses tokio's clock.
#[derive(Clone, Debug)]
pub struct History {
    start: Instant,
    events: Arc<Mutex<Vec<Event>>>,
}

impl History {
    /// An empty history.
    #[must_use]
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            events: Arc::default(),
        }
    }

    /// Checks the events so far; see [`check`](super::check).
    #[must_use]
    pub fn check(&self) -> Report {
        let events = self.lock().clone();
        super::check(events)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

impl Log for History {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn write(&self, event: Event) {
        self.lock().push(event);
    }
}

/// A backend that writes each call on a record into a [`Log`], and passes it to another backend.
///
/// [`changed`](Backend::changed) and [`check`](Backend::check) say nothing of a record, and are passed without being recorded.
#[derive(Debug)]
pub struct Recorder<B, L> {
    pub(super) inner: B,
    process: u32,
    calls: AtomicU64,
    log: L,
}

impl<B, L: Log> Recorder<B, L> {
    /// Records the calls on `inner` as calls of `process`. Two recorders of one history have different numbers.
    pub fn new(inner: B, process: u32, log: L) -> Self {
        Self {
            inner,
            process,
            calls: AtomicU64::new(0),
            log,
        }
    }

    /// Writes `call` down and makes it. If the future of `made` is dropped, the call stays open.
    pub(super) async fn record<T>(
        &self,
        key: &RecordKey,
        call: Call,
        made: impl Future<Output = Result<T, BackendError>>,
        reply: impl FnOnce(&T) -> Reply,
    ) -> Result<T, BackendError> {
        let id = CallId {
            process: self.process,
            number: self.calls.fetch_add(1, Ordering::Relaxed),
        };
        self.log.write(Event::Began {
            id,
            at: self.log.now(),
            key: key.as_str().to_owned(),
            call,
        });
        let returned = made.await;
        let at = self.log.now();
        let reply = match &returned {
            Ok(value) => Some(Some(reply(value))),
            Err(error) => error.is_not_written().then_some(None),
        };
        if let Some(reply) = reply {
            self.log.write(Event::Returned { id, at, reply });
        }
        returned
    }
}

pub(super) fn digest(completion: &Completion) -> Completion {
    match completion {
        Completion::Stored(payload) => Completion::Stored(shortened_bytes(payload)),
        other => other.clone(),
    }
}

/// The step, or its head and the digest of the rest if that is shorter. The head is part of what an operator's change is fenced by.
pub(super) fn shortened_step(step: &Bytes) -> Bytes {
    let (head, rest) = step.split_at(step.len().min(STEP_HEAD_LEN));
    [head, &shortened_bytes(&Bytes::copy_from_slice(rest))].concat().into()
}

/// The bytes, or their digest if that is shorter.
pub(super) fn shortened_bytes(bytes: &Bytes) -> Bytes {
    if bytes.len() > DIGEST_LEN {
        Bytes::copy_from_slice(&Sha256::digest(bytes))
    } else {
        bytes.clone()
    }
}

fn acquisition(acquisition: &Acquisition) -> Reply {
    match acquisition {
        Acquisition::Acquired => Reply::Acquired,
        Acquisition::Existing(record) => Reply::Existing(shortened(record)),
    }
}

/// The record, with the digest of its payload.
pub(super) fn shortened(record: &Record) -> Record {
    match record {
        Record::Completed {
            fingerprint,
            completion,
        } => Record::Completed {
            fingerprint: *fingerprint,
            completion: digest(completion),
        },
        claimed @ (Record::Claimed { .. } | Record::Parked { .. }) => claimed.clone(),
    }
}

impl<B: Backend, L: Log> Backend for Recorder<B, L> {
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        let made = self.inner.claim(key, claim);
        self.record(key, Call::Claim(claim.clone()), made, acquisition).await
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        let made = self.inner.take_over(key, lapsed, claim);
        let call = Call::TakeOver {
            lapsed: lapsed.clone(),
            claim: claim.clone(),
        };
        self.record(key, call, made, acquisition).await
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        let made = self.inner.renew(key, claim);
        self.record(key, Call::Renew(claim.clone()), made, |fenced| Reply::Fenced(*fenced))
            .await
    }

    async fn complete(
        &self,
        key: &RecordKey,
        claim: &Claim,
        completion: &Completion,
        ttl: Duration,
    ) -> Result<Fenced, BackendError> {
        let made = self.inner.complete(key, claim, completion, ttl);
        let call = Call::Complete {
            claim: claim.clone(),
            completion: digest(completion),
            ttl,
        };
        self.record(key, call, made, |fenced| Reply::Fenced(*fenced)).await
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        let made = self.inner.release(key, claim);
        self.record(key, Call::Release(claim.clone()), made, |fenced| Reply::Fenced(*fenced))
            .await
    }

    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, BackendError> {
        let made = self.inner.read(key);
        self.record(key, Call::Read, made, |found| {
            Reply::Found(found.as_ref().map(shortened))
        })
        .await
    }

    async fn changed(&self, key: &RecordKey) -> Result<Changed, BackendError> {
        self.inner.changed(key).await
    }

    async fn check(&self) -> Result<(), BackendError> {
        self.inner.check().await
    }

    fn is_in_process(&self) -> bool {
        self.inner.is_in_process()
    }

    /// The records are those of the other backend.
    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }

    fn steps(&self) -> Option<StepStore<'_>> {
        self.inner.steps().map(|_inner| StepStore::of(self))
    }

    fn inspector(&self) -> Option<Inspector<'_>> {
        self.inner.inspector().map(|_inner| Inspector::of(self))
    }
}
