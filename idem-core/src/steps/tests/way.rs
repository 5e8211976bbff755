//! Steps over a store that is far away: a call takes effect late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::time::sleep;

use super::*;
use crate::steps::{RecordedSteps, StepBackend, StepStore};
use crate::{Acquisition, Backend, BackendError, Changed, Claim, Fenced, Record};

/// How long a takeover is on its way.
const WAY: Duration = Duration::from_millis(600);

/// The memory backend, from far away.
#[derive(Clone, Debug, Default)]
struct Far {
    inner: MemoryBackend,
    /// No record can be read.
    reads_fail: Arc<AtomicBool>,
}

impl Backend for Far {
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        self.inner.claim(key, claim).await
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        sleep(WAY).await;
        self.inner.take_over(key, lapsed, claim).await
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.inner.renew(key, claim).await
    }

    async fn complete(
        &self,
        key: &RecordKey,
        claim: &Claim,
        completion: &Completion,
        ttl: Duration,
    ) -> Result<Fenced, BackendError> {
        self.inner.complete(key, claim, completion, ttl).await
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.inner.release(key, claim).await
    }

    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, BackendError> {
        if self.reads_fail.load(Ordering::SeqCst) {
            let kind = crate::BackendErrorKind::Unavailable;
            return Err(BackendError::new(kind, "switched off"));
        }
        self.inner.read(key).await
    }

    async fn changed(&self, key: &RecordKey) -> Result<Changed, BackendError> {
        self.inner.changed(key).await
    }

    async fn check(&self) -> Result<(), BackendError> {
        self.inner.check().await
    }

    fn steps(&self) -> Option<StepStore<'_>> {
        Some(StepStore::of(self))
    }
}

impl StepBackend for Far {
    async fn record_step(
        &self,
        key: &RecordKey,
        claim: &Claim,
        name: &str,
        step: &Bytes,
    ) -> Result<Fenced, BackendError> {
        StepBackend::record_step(&self.inner, key, claim, name, step).await
    }

    async fn read_steps(&self, key: &RecordKey, claim: &Claim) -> Result<Option<RecordedSteps>, BackendError> {
        StepBackend::read_steps(&self.inner, key, claim).await
    }

    async fn park(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        StepBackend::park(&self.inner, key, claim).await
    }
}

/// An application over `backend`, whose record is parked after one step and about to expire.
async fn about_to_expire(backend: &Far) -> App {
    let app = App {
        engine: Engine::new(backend.clone()),
        ..App::new()
    };
    app.attempt(End::Release, hold).await.expect("it runs");
    advance(POLICY.ttl().saturating_sub(WAY / 2)).await;
    app
}

async fn hold(app: &App, steps: &Steps) -> Result<Hold, Failure> {
    steps.run::<_, _, StepError>("hold", |_| app.effect()).await
}

#[tokio::test(start_paused = true)]
async fn a_record_that_expires_while_it_is_taken_over_is_begun_anew_and_has_lost_nothing() {
    let app = about_to_expire(&Far::default()).await;
    let begun = app.attempt(End::Complete, hold).await;
    assert_eq!(begun.expect("its steps have ended with the record"), Hold { id: 2 });
    assert_eq!(app.claim(REQUEST).await.expect_err("it is done"), Duplicate::NotStored);
}

#[tokio::test(start_paused = true)]
async fn whether_steps_are_lost_is_not_said_before_the_record_was_read() {
    let backend = Far::default();
    let app = about_to_expire(&backend).await;
    backend.reads_fail.store(true, Ordering::SeqCst);
    let failed = app.attempt(End::Release, hold).await;
    assert_eq!(failed.expect_err("no read").kind(), Some(StepErrorKind::Unavailable));
    assert_eq!(app.effects(), 1, "the body was not called");
}
