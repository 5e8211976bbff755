//! Claim, run detached, renew, complete, release.
//!
//! Owns every rule about time, claims and replay: who runs, that a handler which started runs to its end whoever
//! hangs up (IDEM-5), that only an outcome or a lapsed lease ends its claim (IDEM-6), and that every backend call has
//! a deadline (IDEM-13). Does not own what an answer is made of, nor when it is final: the integration says so by the
//! [`RecordOutcome`] it ends a run with.

mod acquire;
mod attended;
mod deadline;
mod large;
mod looks;
mod outcome;
mod pending;
mod recording;
mod releases;
mod renewals;
mod run;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Span;

use self::attended::Attended;
use self::deadline::bounded;
pub use self::deadline::{LARGE_PAYLOAD, allow_time_for, untimed};
use self::looks::Looks;
pub use self::outcome::{
    Commit, CommitOutcome, CommitSent, HandlerResult, RecordOutcome, RunAnswer, RunOutcome, StreamedOutcome,
};
use self::pending::Pending;
use self::releases::Releases;
use self::renewals::Renewer;
use self::run::Work;
use crate::backend::DynBackend;
use crate::observe::{self, Call, InFlight, Timing};
use crate::{AfterCrash, Backend, BackendError, BackendErrorKind, Claim, ClaimPolicy};

/// Runs each request once; clones share backend and running handlers.
#[derive(Clone, Debug)]
pub struct Engine(Arc<Parts>);

/// Behind one pointer: every request clones its engine.
#[derive(Clone, Debug)]
struct Parts {
    backend: Arc<dyn DynBackend>,
    running: TaskTracker,
    renewer: Arc<Renewer>,
    looks: Arc<Looks>,
    releases: Arc<Releases>,
    deadline: Duration,
}

/// What became of a request's claim.
#[derive(Debug)]
pub enum ClaimResult {
    /// It is acquired: run.
    Run(Run),
    /// An equal request, or another one under the key, was first.
    Duplicate {
        /// What it gets in place of a run.
        duplicate: Duplicate,
        /// Whether it waited for that.
        waited: bool,
    },
}

/// What a request gets whose handler does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duplicate {
    /// What an equal request got (IDEM-2).
    Replay(Bytes),
    /// The handler ran for an equal request, whose answer was not kept (IDEM-12).
    NotStored,
    /// The key belongs to another request (IDEM-3).
    Mismatch,
    /// An equal request is still running, also after the policy's wait (IDEM-4). Asking again makes sense after this long:
    /// soon where the owner keeps renewing its claim, and when the lease lapses where it has stopped to.
    InFlight(Duration),
    /// An equal request was run and its process died; by the policy, nobody runs it again (IDEM-7).
    OutcomeUnknown,
}

/// The right to run a request once. Dropped before it is used, its claim is released in the background.
#[derive(Debug)]
#[must_use = "nobody else can run the request while it is held"]
pub struct Run {
    pending: Pending,
    after_crash: AfterCrash,
    /// When the claim was asked for. The lease runs from some moment after it.
    asked: Instant,
}

impl Engine {
    /// How long a backend call may take where nothing else is set.
    pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(1);

    /// An engine over `backend`, with [`Engine::DEFAULT_DEADLINE`].
    ///
    /// With the feature `metrics` it also describes its figures to the recorder that is installed.
    pub fn new(backend: impl Backend) -> Self {
        observe::describe();
        Self(Arc::new(Parts {
            backend: Arc::new(backend),
            running: TaskTracker::new(),
            renewer: Arc::default(),
            looks: Arc::default(),
            releases: Arc::default(),
            deadline: Self::DEFAULT_DEADLINE,
        }))
    }

    /// Sets how long a single backend call may take.
    ///
    /// No call takes longer than a third of the lease it is about either, however long the deadline. Only a call that
    /// moves a payload above [`LARGE_PAYLOAD`] has more: the time that a line of 1 MB a second takes for it.
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

    /// Waits until every handler that was started has ended and its outcome is recorded, or given up.
    ///
    /// Call it after the server has stopped accepting requests: handlers whose client has left are still running then
    /// (IDEM-5), and end with the runtime otherwise. While the backend is away, it waits for outcomes to be recorded
    /// for as long as they would be kept, so bound it by a timeout.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops only the waiting; wrap it in a timeout to bound a shutdown.
    pub async fn drain(&self) {
        self.0.running.close();
        self.0.running.wait().await;
    }

    /// Asks the backend whether claims would be accepted now, within the deadline.
    ///
    /// # Errors
    ///
    /// When they would not, or when there is no answer in time.
    pub async fn check(&self) -> Result<(), BackendError> {
        self.within_deadline(Call::Check, ClaimPolicy::MAX_LEASE, self.0.backend.check())
            .await
    }

    /// The deadline of a call about a claim with this `lease`. What takes longer than a third of the lease would be answered
    /// about a lease that is about to lapse.
    fn deadline_of(&self, lease: Duration) -> Duration {
        self.0.deadline.min(lease / 3)
    }

    /// A backend call about a claim with this `lease`, within the deadline.
    fn within_deadline<T, F>(
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

    /// A backend call within `deadline`, and what it is granted for a large payload.
    fn within<T, F>(
        call: Call,
        deadline: Duration,
        answering: F,
    ) -> impl Future<Output = Result<T, BackendError>> + use<T, F>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        let timing = Timing::start(call);
        // Not an `async fn`, which would have room for `answering` twice.
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

impl Run {
    /// The claim that it is run under.
    #[must_use]
    pub fn claim(&self) -> &Claim {
        self.pending.claim()
    }

    /// Runs `handler` to its end and records its outcome, within the current tracing span.
    ///
    /// `ended` learns how the run ended, once, whether or not the client is still there.
    ///
    /// The handler is polled in the current task, and from the moment that the future is dropped in a task of its own:
    /// task-local values that are set around the future are gone from then on.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it was polled releases the claim in the background; dropping it later changes
    /// nothing: the handler runs to its end and its outcome is recorded.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` stores its arguments twice")]
    pub fn run<A, F, E>(self, handler: F, on_outcome: E) -> impl Future<Output = RunAnswer<A>> + Send
    where
        A: Send + 'static,
        F: Future<Output = HandlerResult<A>> + Send + 'static,
        E: FnOnce(RunOutcome) + Send + 'static,
    {
        async move { self.start(handler, on_outcome).await }
    }

    fn start<A, F, E>(mut self, handler: F, on_outcome: E) -> Attended<RunAnswer<A>>
    where
        A: Send + 'static,
        F: Future<Output = HandlerResult<A>> + Send + 'static,
        E: FnOnce(RunOutcome) + Send + 'static,
    {
        let runtime = Handle::current();
        let work = Arc::new(Work {
            engine: self.pending.engine().clone(),
            key: self.pending.key().clone(),
            claim: self.pending.claim().clone(),
            after_crash: self.after_crash,
            span: Span::current(),
            _counted: InFlight::start(),
            is_recording: false.into(),
        });
        let Parts { renewer, running, .. } = &*work.engine.0;
        let renewals = renewer.renew(&work, &runtime, self.asked);
        let running = running.clone();
        self.pending.start();
        Attended::new(work.answer(renewals, handler, on_outcome), runtime, running)
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
