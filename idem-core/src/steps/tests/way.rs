//! Steps over a store that is far away: a call takes effect late.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::time::sleep;

use super::*;
use crate::steps::{RecordedSteps, StepBackend, StepStore};
use crate::{Acquisition, Backend, BackendError, BackendErrorKind, Changed, Claim, Fenced, Record};

/// How long a takeover is on its way.
const WAY: Duration = Duration::from_millis(600);

/// The memory backend, from far away.
#[derive(Clone, Debug, Default)]
struct Far {
    inner: MemoryBackend,
    /// No record can be read.
    reads_fail: Arc<AtomicBool>,
    /// What happens to the next call to record a step.
    breaks: Arc<Mutex<Option<Breaks>>>,
}

/// When a connection breaks. The caller is told at once.
#[derive(Clone, Copy, Debug)]
enum Breaks {
    /// Before the call was sent.
    Before,
    /// While the call is on its way, which it goes on.
    Meanwhile,
    /// Before its answer has arrived.
    After,
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
            return Err(BackendError::new(BackendErrorKind::Unavailable, "switched off"));
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
        let breaks = self.breaks.lock().expect("no panic").take();
        let broken = || BackendError::new(BackendErrorKind::Unavailable, "the connection broke");
        let (far, key, claim, name, step) = (
            self.inner.clone(),
            key.clone(),
            claim.clone(),
            name.to_owned(),
            step.clone(),
        );
        let recording = async move { StepBackend::record_step(&far, &key, &claim, &name, &step).await };
        match breaks {
            None => recording.await,
            Some(Breaks::Before) => Err(broken().not_written()),
            Some(Breaks::Meanwhile) => {
                tokio::spawn(async move {
                    sleep(WAY).await;
                    recording.await
                });
                Err(broken())
            }
            Some(Breaks::After) => {
                let _recorded = recording.await?;
                Err(broken())
            }
        }
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

async fn capture(app: &App, steps: &Steps) -> Result<Hold, Failure> {
    let body = |_| app.effect();
    steps.run::<_, _, StepError>("capture", body).at_most_once().await
}

/// What the first attempt is told of a step that runs at most once, whose start `breaks`, and what the second one is told.
async fn told(breaks: Breaks) -> (Result<Hold, Failure>, Result<Hold, Failure>, u32) {
    let backend = Far::default();
    let app = App {
        engine: Engine::new(backend.clone()),
        ..App::new()
    };
    *backend.breaks.lock().expect("no panic") = Some(breaks);
    let first = app.attempt(End::Release, async |app, steps| {
        let told = capture(app, steps).await;
        // Whatever is on its way arrives before the record is parked.
        sleep(WAY * 2).await;
        told
    });
    let first = first.await;
    let second = app.attempt(End::Release, capture).await;
    (first, second, app.effects())
}

#[tokio::test(start_paused = true)]
async fn a_start_that_arrives_late_never_takes_the_place_of_an_end() {
    let (first, second, effects) = told(Breaks::Meanwhile).await;
    assert!(
        first.is_err() || second.is_ok(),
        "the end was acknowledged, and the next attempt is told {second:?}"
    );
    assert_eq!(
        first.expect_err("the start may be on its way").kind(),
        Some(StepErrorKind::Unavailable)
    );
    assert_eq!(
        second.expect_err("the start has arrived").kind(),
        Some(StepErrorKind::Interrupted)
    );
    assert_eq!(effects, 0, "the body was not called");
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_answer_was_lost_or_that_was_not_sent_does_not_stop_the_step() {
    for breaks in [Breaks::After, Breaks::Before] {
        let (first, second, effects) = told(breaks).await;
        assert_eq!(first.expect("it runs"), Hold { id: 1 }, "{breaks:?}");
        assert_eq!(second.expect("it is recorded"), Hold { id: 1 }, "{breaks:?}");
        assert_eq!(effects, 1, "{breaks:?}");
    }
}
