//! What a backend does besides, so that handlers may have durable steps.
//!
//! Owns the trait, its numbered contract, and the object-safe version of the trait that the engine calls. The numbers go on from
//! those of [`Backend`](crate::Backend).

use std::fmt;
use std::future::Future;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{BackendError, Claim, Fenced, RecordKey};

/// The recorded steps of a record: names, and the bytes recorded under them.
pub type RecordedSteps = Vec<(String, Bytes)>;

/// A store that also keeps the steps of a record's attempts.
///
/// A step is a name and some bytes. Steps belong to the record, not to one attempt: they stay when a claim is taken over, and they
/// end with the record. Names are 1 to 64 ASCII letters, digits, `-` and `_`.
///
/// Implement it together with [`Backend`](crate::Backend), and return the implementation from [`Backend::steps`](crate::Backend::steps).
///
/// # Contract
///
/// 16. [`record_step`](StepBackend::record_step) writes a step into the record of the claim in place, over a step of the same name
///     if there is one, and starts the lease anew. From then on, the claim in place has [`Claim::has_steps`].
/// 17. [`read_steps`](StepBackend::read_steps) returns all steps of the claim's record, byte for byte, in any order, and changes
///     nothing.
/// 18. [`park`](StepBackend::park) ends the attempt and keeps its steps: the record is [`Record::Parked`](crate::Record::Parked)
///     for the claim's `ttl` from then on. Repeating it is [`Fenced::Applied`]. Of a claim without steps it is a release. It wakes
///     waiters as a release does (clause 13).
/// 19. [`take_over`](crate::Backend::take_over) of a lapsed claim with steps, or of a parked claim, keeps the steps: the new claim
///     has them. A parked claim need not lapse first.
/// 20. A parked claim has no owner. [`renew`](crate::Backend::renew), [`complete`](crate::Backend::complete),
///     [`release`](crate::Backend::release), `record_step` and `read_steps` by its token are [`Fenced::Superseded`].
/// 21. Completion, release and expiry of the record end its steps. A later claim never sees them.
/// 22. If the store has lost the steps of a claim that has steps, `record_step` is
///     [`BackendErrorKind::Unreadable`](crate::BackendErrorKind::Unreadable), and `read_steps` returns none. It has lost them also if
///     the claim in place has no steps although the argument of `record_step` has.
///
/// A claim is identified by its token. The argument's [`Claim::has_steps`] says for `record_step` that the owner knows of a recorded
/// step. For the other calls it says that the owner has tried to record one, so that the store may look for steps only then; a step that
/// was tried need not be there. [`claim`](crate::Backend::claim) does not look at it, nor does [`take_over`](crate::Backend::take_over) at
/// that of the new claim.
pub trait StepBackend: fmt::Debug + Send + Sync + 'static {
    /// Writes a step of `claim` (clauses 16, 20 and 22).
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses, or has lost the steps before; the call may be repeated.
    fn record_step(
        &self,
        key: &RecordKey,
        claim: &Claim,
        name: &str,
        step: &Bytes,
    ) -> impl Future<Output = Result<Fenced, BackendError>> + Send;

    /// Reads the steps of `claim`'s record; `None` if the claim is not in place (clauses 17, 20 and 22).
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses.
    fn read_steps(
        &self,
        key: &RecordKey,
        claim: &Claim,
    ) -> impl Future<Output = Result<Option<RecordedSteps>, BackendError>> + Send;

    /// Ends the attempt of `claim` and keeps its steps (clause 18).
    ///
    /// # Errors
    ///
    /// When the store cannot be reached or refuses; the call may be repeated.
    fn park(&self, key: &RecordKey, claim: &Claim) -> impl Future<Output = Result<Fenced, BackendError>> + Send;
}

/// The steps of a backend, as [`Backend::steps`](crate::Backend::steps) returns them.
#[derive(Clone, Copy, Debug)]
pub struct StepStore<'a>(&'a dyn DynStepBackend);

impl<'a> StepStore<'a> {
    /// The steps of `backend`.
    pub fn of(backend: &'a impl StepBackend) -> Self {
        Self(backend)
    }

    /// [`StepBackend::record_step`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn record_step(
        self,
        key: &RecordKey,
        claim: &Claim,
        name: &str,
        step: &Bytes,
    ) -> Result<Fenced, BackendError> {
        self.0.record_step(key, claim, name, step).await
    }

    /// [`StepBackend::read_steps`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn read_steps(self, key: &RecordKey, claim: &Claim) -> Result<Option<RecordedSteps>, BackendError> {
        self.0.read_steps(key, claim).await
    }

    /// [`StepBackend::park`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn park(self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.0.park(key, claim).await
    }
}

trait DynStepBackend: fmt::Debug + Send + Sync {
    fn record_step<'a>(
        &'a self,
        key: &'a RecordKey,
        claim: &'a Claim,
        name: &'a str,
        step: &'a Bytes,
    ) -> BoxFuture<'a, Result<Fenced, BackendError>>;

    fn read_steps<'a>(
        &'a self,
        key: &'a RecordKey,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Option<RecordedSteps>, BackendError>>;

    fn park<'a>(&'a self, key: &'a RecordKey, claim: &'a Claim) -> BoxFuture<'a, Result<Fenced, BackendError>>;
}

impl<B: StepBackend> DynStepBackend for B {
    fn record_step<'a>(
        &'a self,
        key: &'a RecordKey,
        claim: &'a Claim,
        name: &'a str,
        step: &'a Bytes,
    ) -> BoxFuture<'a, Result<Fenced, BackendError>> {
        Box::pin(StepBackend::record_step(self, key, claim, name, step))
    }

    fn read_steps<'a>(
        &'a self,
        key: &'a RecordKey,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Option<RecordedSteps>, BackendError>> {
        Box::pin(StepBackend::read_steps(self, key, claim))
    }

    fn park<'a>(&'a self, key: &'a RecordKey, claim: &'a Claim) -> BoxFuture<'a, Result<Fenced, BackendError>> {
        Box::pin(StepBackend::park(self, key, claim))
    }
}
