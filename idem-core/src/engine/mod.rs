//! Claim, run detached, renew, complete, release.
//!
//! Owns every rule about time, claims and replay:
//!
//! - which request runs;
//! - a handler that has started runs to its end, even if the client hangs up (IDEM-5);
//! - only an outcome or a lapsed lease ends the claim of a started handler (IDEM-6);
//! - every backend call has a deadline (IDEM-13).
//!
//! Does not own the content of an answer, nor when it is final: the integration decides that by the [`RecordOutcome`] with
//! which it ends a run.

mod acquire;
mod attended;
mod claimed;
mod deadline;
mod large;
mod look;
mod looks;
mod outcome;
mod pending;
mod permits;
mod recording;
mod releases;
mod renewals;
mod run;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

pub use self::claimed::Run;
use self::deadline::bounded;
pub use self::deadline::{LARGE_PAYLOAD, allow_time_for, untimed};
use self::looks::Looks;
pub use self::outcome::{
    Commit, CommitOutcome, CommitSent, HandlerResult, RecordOutcome, RunAnswer, RunOutcome, StreamedOutcome,
};
use self::permits::Permits;
use self::releases::Releases;
use self::renewals::Renewer;
use crate::backend::DynBackend;
use crate::inspect::Operator;
use crate::observe::{self, Call, Timing};
use crate::steps::{StepLimits, StepStore};
use crate::{Backend, BackendError, BackendErrorKind, Claim, ClaimPolicy, Fingerprint, Owner, Record, RecordKey};

/// Runs each request once. Clones share the backend and the running handlers.
#[derive(Clone, Debug)]
pub struct Engine(Arc<Parts>);

/// The parts of an engine, behind one pointer because every request clones its engine.
#[derive(Clone, Debug)]
struct Parts {
    backend: Arc<dyn DynBackend>,
    running: TaskTracker,
    renewer: Arc<Renewer>,
    looks: Arc<Looks>,
    releases: Arc<Releases>,
    deadline: Duration,
    owner: Owner,
    /// `None` if any number of handlers may run at once.
    permits: Option<Permits>,
    step_limits: StepLimits,
}

/// The result of [`Engine::claim`].
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "most requests are first ones, and would pay for a box"
)]
pub enum ClaimResult {
    /// The claim is acquired: run the handler.
    Run(Run),
    /// Another request came first under this key; it may be an equal one or a different one.
    Duplicate {
        /// The answer in place of a run.
        duplicate: Duplicate,
        /// Whether the request waited for that answer.
        waited: bool,
    },
    /// As many handlers run as [`Engine::with_max_in_flight`] allows. Nothing was claimed.
    TooBusy,
}

/// The answer to a request whose handler does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duplicate {
    /// The stored answer of an equal request (IDEM-2).
    Replay(Bytes),
    /// The handler ran for an equal request, and its answer was not kept (IDEM-12).
    NotStored,
    /// The key belongs to a different request (IDEM-3).
    Mismatch,
    /// An equal request is still in flight, also after the policy's wait (IDEM-4). Retry after this long. The time is short
    /// while the owner renews its claim; if the owner has stopped renewing, it lasts until the lease lapses.
    InFlight(Duration),
    /// An equal request was run, it is unknown whether it took effect, and it must not run again (IDEM-7).
    OutcomeUnknown,
}

impl AsRef<Self> for Engine {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Engine {
    /// How long a backend call may take by default.
    pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(1);

    /// An engine over `backend`, with [`Engine::DEFAULT_DEADLINE`].
    ///
    /// With the feature `metrics`, it also describes its metrics to the installed recorder.
    pub fn new(backend: impl Backend) -> Self {
        observe::describe();
        Self(Arc::new(Parts {
            backend: Arc::new(backend),
            running: TaskTracker::new(),
            renewer: Arc::default(),
            looks: Arc::default(),
            releases: Arc::default(),
            deadline: Self::DEFAULT_DEADLINE,
            owner: Owner::this_process(),
            permits: None,
            step_limits: StepLimits::default(),
        }))
    }

    /// Sets the name of this process in its claims, for logs and operators. By default it is the host's name and the process's
    /// number.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        Arc::make_mut(&mut self.0).owner = owner;
        self
    }

    /// Sets how many handlers may run at once. By default, there is no limit.
    ///
    /// A handler counts until it ends, whether or not its client is still connected. A request that would run and finds as many
    /// running is [`ClaimResult::TooBusy`] and claims nothing. A duplicate of a completed request is never refused.
    ///
    /// # Panics
    ///
    /// When `most` is zero.
    #[must_use]
    pub fn with_max_in_flight(mut self, most: usize) -> Self {
        assert!(most > 0, "`max_in_flight` is zero, so that no handler could run");
        Arc::make_mut(&mut self.0).permits = Some(Permits::new(most));
        self
    }

    /// How many handlers may run at once; `None` if there is no limit.
    #[must_use]
    pub fn max_in_flight(&self) -> Option<usize> {
        self.0.permits.as_ref().map(Permits::most)
    }

    /// Sets how many steps an attempt may have, and how large their results may be.
    #[must_use]
    pub fn with_step_limits(mut self, limits: StepLimits) -> Self {
        Arc::make_mut(&mut self.0).step_limits = limits;
        self
    }

    /// Whether the backend keeps steps.
    #[must_use]
    pub fn keeps_steps(&self) -> bool {
        self.step_store().is_some()
    }

    pub(crate) fn step_store(&self) -> Option<StepStore<'_>> {
        self.0.backend.steps()
    }

    /// Whether the backend keeps its records in this process, so that they end with it.
    #[must_use]
    pub fn is_in_process(&self) -> bool {
        self.0.backend.is_in_process()
    }

    /// The backend, if it is a `B`. For integrations with what only some backends can do.
    #[must_use]
    pub fn backend<B: Backend>(&self) -> Option<&B> {
        self.0.backend.as_any().downcast_ref()
    }

    /// The records of this engine for the operator `name`, for an application's own admin routes; `None` if the backend cannot be
    /// inspected. Every change is logged with the name.
    #[must_use]
    pub fn operator(&self, name: impl Into<String>) -> Option<Operator> {
        Operator::of(self.0.backend.clone(), name.into())
    }

    /// Sets how long a single backend call may take.
    ///
    /// A call about a claim is also limited to a third of the claim's lease. A call that moves a payload above
    /// [`LARGE_PAYLOAD`] gets more time: as much as a connection of 1 MB per second needs for the payload.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        Arc::make_mut(&mut self.0).deadline = deadline;
        self
    }

    /// How long a single backend call may take.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.0.deadline
    }

    /// Waits until every started handler has ended, and its outcome is recorded or given up.
    ///
    /// A handler that runs for longer than its policy's [`max_run`](ClaimPolicy::with_max_run) is not waited for once its lease
    /// has lapsed.
    ///
    /// Call it after the server has stopped accepting requests. Handlers whose client has hung up may still be running then
    /// (IDEM-5); without `drain`, they are aborted when the runtime shuts down. While the backend is unavailable, `drain`
    /// waits for an outcome to be recorded for up to the outcome's `ttl`, so wrap it in a timeout.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops only the waiting. The handlers keep running.
    pub async fn drain(&self) {
        self.0.running.close();
        self.0.running.wait().await;
    }

    /// Runs work that has no claim to its end, in a task of its own, whether or not somebody still waits for it. `None` if it panicked.
    /// [`drain`](Self::drain) waits for it.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn detach<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let token = self.0.running.token();
        let work = async move {
            let _token = token;
            // The panic hook has reported the panic itself.
            AssertUnwindSafe(work).catch_unwind().await.ok()
        };
        tokio::spawn(work.in_current_span()).await.ok().flatten()
    }

    /// Asks the backend, within the deadline, whether it would accept claims now.
    ///
    /// # Errors
    ///
    /// When the backend would not accept claims, or does not answer in time.
    pub async fn check(&self) -> Result<(), BackendError> {
        self.within_deadline(Call::Check, ClaimPolicy::MAX_LEASE, self.0.backend.check())
            .await
    }

    /// Reads the record under `key`, for the owner of a claim with this `lease`.
    pub(crate) async fn read(&self, key: &RecordKey, lease: Duration) -> Result<Option<Record>, BackendError> {
        self.ask(Call::Read, lease, || self.0.backend.read(key)).await
    }

    /// The claim of a first attempt that begins now.
    fn first_claim(&self, fingerprint: Fingerprint, policy: &ClaimPolicy) -> Claim {
        Claim {
            owner: self.0.owner,
            ..Claim::first(fingerprint, policy)
        }
    }

    /// The deadline of a call about a claim with this `lease`: at most a third of the lease, because a later answer would be
    /// about a lease that is close to lapsing.
    pub(crate) fn deadline_of(&self, lease: Duration) -> Duration {
        self.0.deadline.min(lease / 3)
    }

    /// Bounds a backend call about a claim with this `lease` by the deadline.
    pub(crate) fn within_deadline<T, F>(
        &self,
        call: Call,
        lease: Duration,
        answering: F,
    ) -> impl Future<Output = Result<T, BackendError>> + use<T, F>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        Self::within(call, self.deadline_of(lease), answering)
    }

    /// Bounds a backend call by `deadline`, plus the time that it is granted for a large payload.
    fn within<T, F>(
        call: Call,
        deadline: Duration,
        answering: F,
    ) -> impl Future<Output = Result<T, BackendError>> + use<T, F>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        let timing = Timing::start(call);
        // Not an `async fn`, which would store `answering` twice in its state machine.
        bounded(deadline, answering).map(move |answered| {
            let answered = answered.unwrap_or_else(|waited| {
                let context = format!("no answer within {waited:?}");
                Err(BackendError::new(BackendErrorKind::Timeout, context))
            });
            timing.end(&answered);
            answered
        })
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
