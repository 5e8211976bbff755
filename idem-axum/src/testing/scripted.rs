//! A backend that does as it is told.
//!
//! Owns what a fault does to a record. Which call has which fault is [`script`](super::script)'s, and the records are
//! those of the backend behind it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use idem_core::{
    Acquisition, Backend, BackendError, BackendErrorKind, Changed, Claim, Completion, Fenced, Record, RecordKey, Token,
};

use bytes::Bytes;
use idem_core::inspect::Inspector;
use idem_core::steps::{RecordedSteps, StepBackend, StepStore};

use super::script::{BackendCall, Fault, Script, Stall};

/// A backend in front of another one, such as a [`MemoryBackend`](crate::MemoryBackend), whose calls fail, stall or find
/// their claim gone, as the test says, and which counts them. Clones are one backend and one script.
///
/// Where nothing is said it keeps the [contract](Backend#contract) as the one behind it does. Errors and stalls are within
/// the contract too; [`Fault::LostClaim`] and [`Fault::Superseded`] break the clauses that they name, as a store does that
/// loses what it was given.
///
/// A `Transaction` needs a `PostgresBackend` or a `SqliteBackend` itself, and is refused in front of this one.
///
/// ```
/// use axum::http::Request;
/// use axum::{Router, routing::post};
/// use idem_axum::testing::{BackendCall, Fault, ScriptedBackend};
/// use idem_axum::{BackendErrorKind, Idempotency, MemoryBackend, idempotent};
/// use tower::ServiceExt as _;
///
/// #[idempotent(ttl = "24h", scope = global)]
/// async fn place_order() {}
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), axum::http::Error> {
/// let backend = ScriptedBackend::new(MemoryBackend::new());
/// let app: Router = Router::new()
///     .route("/orders", post(place_order))
///     .layer(Idempotency::new(backend.clone()));
///
/// let send = || Request::post("/orders").header("Idempotency-Key", "order-1").body(String::new());
/// backend.on_every(BackendCall::Claim, Fault::Error(BackendErrorKind::Unavailable));
/// let refused = app.clone().oneshot(send()?).await.unwrap_or_else(|never| match never {});
/// backend.recover();
/// let retry = app.clone().oneshot(send()?).await.unwrap_or_else(|never| match never {});
///
/// assert_eq!((refused.status().as_u16(), retry.status().as_u16()), (503, 200));
/// assert_eq!(backend.calls(BackendCall::Complete), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ScriptedBackend<B>(Arc<Scripted<B>>);

#[derive(Debug)]
struct Scripted<B> {
    inner: B,
    script: Script,
    /// Those in place, as far as they were made by way of this backend.
    claims: Mutex<HashMap<RecordKey, Claim>>,
}

impl<B> Clone for ScriptedBackend<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: Backend> ScriptedBackend<B> {
    /// Passes every call on to `inner`, until it is told otherwise.
    pub fn new(inner: B) -> Self {
        let (script, claims) = (Script::default(), Mutex::default());
        Self(Arc::new(Scripted { inner, script, claims }))
    }

    /// The backend that has the records.
    #[must_use]
    pub fn inner(&self) -> &B {
        &self.0.inner
    }

    /// Sets what happens to the next `call` that nothing is set for. May be said several times in advance.
    ///
    /// A call is not a request: a claim that fails with `Unavailable` is asked for once more at once, and a renewal or a
    /// completion until it succeeds or makes no sense any more.
    pub fn on_next(&self, call: BackendCall, fault: Fault) {
        self.0.script.on_next(call, fault);
    }

    /// Sets what happens to every `call` from now on, but for those that [`on_next`](Self::on_next) has set something
    /// for.
    pub fn on_every(&self, call: BackendCall, fault: Fault) {
        self.0.script.on_every(call, fault);
    }

    /// Takes back what was set for calls to come. Calls that wait at a [`Stall`] wait on.
    pub fn recover(&self) {
        self.0.script.recover();
    }

    /// Lets each `call` wait from now on, before it has an effect, until the [`Stall`] is dropped. The engine gives it up
    /// at its deadline ([`Idempotency::with_deadline`](crate::Idempotency::with_deadline)), one second where nothing is
    /// set.
    pub fn stall(&self, call: BackendCall) -> Stall {
        self.0.script.stall(call)
    }

    /// How many of `call` there were, those that failed or wait included.
    #[must_use]
    pub fn calls(&self, call: BackendCall) -> usize {
        self.0.script.calls(call)
    }

    /// Plays a call by the script: `effect` is what it does behind this backend. One that is about no record has no key.
    async fn play<T>(
        &self,
        call: BackendCall,
        key: Option<&RecordKey>,
        effect: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let scripted = |kind| BackendError::new(kind, "a test wants it so");
        let fault = self.0.script.next_fault(call).await;
        match (fault, key) {
            (Some(Fault::Error(kind)), _) => return Err(scripted(kind)),
            (Some(Fault::LostClaim), Some(key)) => {
                self.lose(key).await?;
            }
            (Some(Fault::Superseded), Some(key)) => self.supersede(key).await?,
            (Some(Fault::LostAnswer | Fault::LostClaim | Fault::Superseded) | None, _) => {}
        }
        let answer = effect.await?;
        match fault {
            Some(Fault::LostAnswer) => Err(scripted(BackendErrorKind::Timeout)),
            _ => Ok(answer),
        }
    }

    /// Removes the claim in place.
    async fn lose(&self, key: &RecordKey) -> Result<Option<Claim>, BackendError> {
        let claim = self.claims().remove(key);
        if let Some(claim) = &claim {
            let _ = self.0.inner.release(key, claim).await?;
        }
        Ok(claim)
    }

    /// Puts the claim of another attempt in the place of the one there is.
    async fn supersede(&self, key: &RecordKey) -> Result<(), BackendError> {
        if let Some(claim) = self.lose(key).await? {
            let other = Claim {
                token: Token::random(),
                attempt: claim.attempt + 1,
                ..claim
            };
            let _ = self.0.inner.claim(key, &other).await?;
        }
        Ok(())
    }

    /// Remembers a claim that was acquired.
    fn acquired(&self, key: &RecordKey, claim: &Claim, acquisition: &Acquisition) {
        if *acquisition == Acquisition::Acquired {
            self.claims().insert(key.clone(), claim.clone());
        }
    }

    /// Forgets a claim that has ended.
    fn ended(&self, key: &RecordKey, fenced: Fenced) {
        if fenced == Fenced::Applied {
            self.claims().remove(key);
        }
    }

    /// No operation leaves it half changed, so a poisoned one is whole.
    fn claims(&self) -> MutexGuard<'_, HashMap<RecordKey, Claim>> {
        self.0.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Backend> Backend for ScriptedBackend<B> {
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        let effect = async {
            let acquisition = self.0.inner.claim(key, claim).await?;
            self.acquired(key, claim, &acquisition);
            Ok(acquisition)
        };
        self.play(BackendCall::Claim, Some(key), effect).await
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        let effect = async {
            let acquisition = self.0.inner.take_over(key, lapsed, claim).await?;
            self.acquired(key, claim, &acquisition);
            Ok(acquisition)
        };
        self.play(BackendCall::TakeOver, Some(key), effect).await
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.play(BackendCall::Renew, Some(key), self.0.inner.renew(key, claim))
            .await
    }

    async fn complete(
        &self,
        key: &RecordKey,
        claim: &Claim,
        completion: &Completion,
        ttl: Duration,
    ) -> Result<Fenced, BackendError> {
        let effect = async {
            let fenced = self.0.inner.complete(key, claim, completion, ttl).await?;
            self.ended(key, fenced);
            Ok(fenced)
        };
        self.play(BackendCall::Complete, Some(key), effect).await
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        let effect = async {
            let fenced = self.0.inner.release(key, claim).await?;
            self.ended(key, fenced);
            Ok(fenced)
        };
        self.play(BackendCall::Release, Some(key), effect).await
    }

    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, BackendError> {
        self.play(BackendCall::Read, Some(key), self.0.inner.read(key)).await
    }

    async fn changed(&self, key: &RecordKey) -> Result<Changed, BackendError> {
        self.play(BackendCall::Changed, Some(key), self.0.inner.changed(key))
            .await
    }

    async fn check(&self) -> Result<(), BackendError> {
        self.play(BackendCall::Check, None, self.0.inner.check()).await
    }

    fn steps(&self) -> Option<StepStore<'_>> {
        self.0.inner.steps().map(|_inner| StepStore::of(self))
    }

    /// The operator's view of the backend behind this one. The script has no calls of operators.
    fn inspector(&self) -> Option<Inspector<'_>> {
        self.0.inner.inspector()
    }
}

impl<B: Backend> ScriptedBackend<B> {
    fn inner_steps(&self) -> Result<StepStore<'_>, BackendError> {
        let lacking = || BackendError::new(BackendErrorKind::Config, "the backend behind it keeps no steps");
        self.0.inner.steps().ok_or_else(lacking)
    }
}

impl<B: Backend> StepBackend for ScriptedBackend<B> {
    async fn record_step(
        &self,
        key: &RecordKey,
        claim: &Claim,
        name: &str,
        step: &Bytes,
    ) -> Result<Fenced, BackendError> {
        let effect = self.inner_steps()?.record_step(key, claim, name, step);
        self.play(BackendCall::RecordStep, Some(key), effect).await
    }

    async fn read_steps(&self, key: &RecordKey, claim: &Claim) -> Result<Option<RecordedSteps>, BackendError> {
        let effect = self.inner_steps()?.read_steps(key, claim);
        self.play(BackendCall::ReadSteps, Some(key), effect).await
    }

    async fn park(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        let effect = async {
            let fenced = self.inner_steps()?.park(key, claim).await?;
            self.ended(key, fenced);
            Ok(fenced)
        };
        self.play(BackendCall::Park, Some(key), effect).await
    }
}
