//! The memory backend behind switches, one for each way in which a store can fail.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use crate::steps::{RecordedSteps, StepBackend, StepStore};
use crate::{
    Acquisition, Backend, BackendError, BackendErrorKind, Changed, Claim, Completion, Fenced, MemoryBackend, Record,
    RecordKey, Token,
};

/// The memory backend behind switches.
#[derive(Clone, Debug, Default)]
pub(super) struct Faulty {
    pub(super) inner: MemoryBackend,
    pub(super) fault: Arc<Switches>,
    pub(super) calls: Arc<Calls>,
}

/// How often something was called.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) claims: AtomicU32,
    pub(super) releases: AtomicU32,
    /// Tries to record a step.
    pub(super) steps: AtomicU32,
    /// Under which tokens claims failed.
    pub(super) failed: Mutex<Vec<Token>>,
}

#[derive(Debug, Default)]
pub(super) struct Switches {
    /// Every call takes effect, and its answer takes ten milliseconds.
    pub(super) slow: AtomicBool,
    /// Claims fail, and nobody knows whether they were written: they are not.
    pub(super) claims_fail: AtomicBool,
    /// Claims are refused: they are certainly not written.
    pub(super) claims_refused: AtomicBool,
    /// Every call takes effect and then hangs.
    pub(super) hangs: AtomicBool,
    /// Taking over takes effect and then hangs.
    pub(super) take_overs_hang: AtomicBool,
    /// There is no place for steps.
    pub(super) keeps_no_steps: AtomicBool,
    /// Steps are not recorded.
    pub(super) steps_fail: AtomicBool,
    /// Renewals fail.
    pub(super) renewals_fail: AtomicBool,
    /// Completions and releases fail.
    pub(super) settling_fails: AtomicBool,
    /// Completions panic.
    pub(super) completing_panics: AtomicBool,
    /// Nobody can listen for changes.
    pub(super) deaf: AtomicBool,
    /// Whoever listens is never confirmed to.
    pub(super) listening_hangs: AtomicBool,
}

impl Faulty {
    async fn answer<T>(&self, answer: T) -> Result<T, BackendError> {
        if self.fault.hangs.load(Ordering::SeqCst) {
            futures_util::future::pending::<()>().await;
        }
        if self.fault.slow.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(answer)
    }

    fn fails(switch: &AtomicBool) -> Result<(), BackendError> {
        if switch.load(Ordering::SeqCst) {
            return Err(BackendError::new(BackendErrorKind::Unavailable, "switched off"));
        }
        Ok(())
    }
}

impl Backend for Faulty {
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        self.calls.claims.fetch_add(1, Ordering::SeqCst);
        if self.fault.claims_fail.load(Ordering::SeqCst) {
            self.calls.failed.lock().expect("no panic").push(claim.token);
        }
        Self::fails(&self.fault.claims_fail)?;
        Self::fails(&self.fault.claims_refused).map_err(BackendError::not_written)?;
        self.answer(self.inner.claim(key, claim).await?).await
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        if self.fault.take_overs_hang.load(Ordering::SeqCst) {
            self.inner.take_over(key, lapsed, claim).await?;
            futures_util::future::pending::<()>().await;
        }
        self.answer(self.inner.take_over(key, lapsed, claim).await?).await
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        Self::fails(&self.fault.renewals_fail)?;
        self.answer(self.inner.renew(key, claim).await?).await
    }

    async fn complete(
        &self,
        key: &RecordKey,
        claim: &Claim,
        completion: &Completion,
        ttl: Duration,
    ) -> Result<Fenced, BackendError> {
        assert!(
            !self.fault.completing_panics.load(Ordering::SeqCst),
            "in the backend, on purpose"
        );
        Self::fails(&self.fault.settling_fails)?;
        self.answer(self.inner.complete(key, claim, completion, ttl).await?)
            .await
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.calls.releases.fetch_add(1, Ordering::SeqCst);
        Self::fails(&self.fault.settling_fails)?;
        self.answer(self.inner.release(key, claim).await?).await
    }

    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, BackendError> {
        self.inner.read(key).await
    }

    fn steps(&self) -> Option<StepStore<'_>> {
        (!self.fault.keeps_no_steps.load(Ordering::SeqCst)).then(|| StepStore::of(self))
    }

    async fn changed(&self, key: &RecordKey) -> Result<Changed, BackendError> {
        Self::fails(&self.fault.deaf)?;
        if self.fault.listening_hangs.load(Ordering::SeqCst) {
            futures_util::future::pending::<()>().await;
        }
        self.answer(self.inner.changed(key).await?).await
    }

    async fn check(&self) -> Result<(), BackendError> {
        Self::fails(&self.fault.deaf)?;
        self.answer(()).await
    }
}

impl Faulty {
    fn inner_steps(&self) -> StepStore<'_> {
        StepStore::of(&self.inner)
    }
}

impl StepBackend for Faulty {
    async fn record_step(
        &self,
        key: &RecordKey,
        claim: &Claim,
        name: &str,
        step: &Bytes,
    ) -> Result<Fenced, BackendError> {
        self.calls.steps.fetch_add(1, Ordering::SeqCst);
        Self::fails(&self.fault.steps_fail)?;
        self.answer(self.inner_steps().record_step(key, claim, name, step).await?)
            .await
    }

    async fn read_steps(&self, key: &RecordKey, claim: &Claim) -> Result<Option<RecordedSteps>, BackendError> {
        self.answer(self.inner_steps().read_steps(key, claim).await?).await
    }

    async fn park(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        Self::fails(&self.fault.settling_fails)?;
        self.answer(self.inner_steps().park(key, claim).await?).await
    }
}
