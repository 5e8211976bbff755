//! Claim, run detached, renew, complete, release.
//!
//! Owns every rule about time, claims and replay: who runs, that a handler which started runs to its end whoever
//! hangs up (IDEM-5), that only an outcome or a lapsed lease ends its claim (IDEM-6), and that every backend call has
//! a deadline (IDEM-13). Does not own what an answer is made of, nor when it is final: the integration says so by the
//! [`Outcome`] it ends a run with.

mod acquire;
mod attended;
mod deadline;
mod large;
mod looks;
mod releases;
mod renewals;
mod run;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Span;

use self::acquire::Pending;
use self::attended::Attended;
use self::deadline::bounded;
pub use self::deadline::{LARGE_PAYLOAD, allow_time_for, untimed};
use self::looks::Looks;
use self::releases::Releases;
use self::renewals::Renewer;
use self::run::Work;
use crate::backend::DynBackend;
use crate::observe::{self, Call, InFlight, Timing};
use crate::{AfterCrash, Backend, BackendError, BackendErrorKind, Claim, Completion, Policy};

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

/// How a run ended, for its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Kept: duplicates get this from now on.
    Complete(Completion),
    /// Not kept: the next request runs again, as the first did (IDEM-11).
    Release,
}

/// What a handler's future resolves to.
pub enum Finished<A> {
    /// The answer is whole. It is handed out once its outcome is recorded, or could not be.
    Whole {
        /// For the client.
        answer: A,
        /// For the record.
        outcome: Outcome,
    },
    /// The answer can start before its outcome is known. The claim is held until the outcome is.
    Streaming {
        /// For the client, at once.
        answer: A,
        /// For the record, later; polled whether or not the client is still there.
        ending: BoxFuture<'static, Ending>,
    },
    /// The answer is whole, and nobody knows how far the handler's effects came. Nothing is recorded: the claim lapses, as
    /// after a panic under [`AfterCrash::Refuse`].
    Unknown {
        /// For the client.
        answer: A,
    },
    /// The answer is whole, and its outcome is recorded by whoever made it, together with the handler's own effects: all
    /// of it, or nothing.
    Joint {
        /// For the client, if it is recorded.
        answer: A,
        /// Records it.
        commit: Commit,
    },
}

/// The commit of a handler's effects together with their outcome.
///
/// It may be given up at the deadline. Whether something can have been committed by then depends on how far it has come, so
/// it says when the commit is sent.
pub struct Commit {
    committing: BoxFuture<'static, CommitOutcome>,
    is_sent: Arc<AtomicBool>,
    /// What its size grants it beyond the deadline.
    granted: Duration,
}

/// Says that the commit is about to be sent, so that from now on it may have happened.
#[derive(Debug)]
pub struct CommitSent(Arc<AtomicBool>);

/// What is known of a commit when it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommitOutcome {
    /// The effects and the outcome are there.
    Committed,
    /// Neither is: the claim is no longer in place.
    Superseded,
    /// Neither is: the transaction was rolled back.
    RolledBack {
        /// Whether the same may succeed the next time.
        may_pass: bool,
    },
    /// Nothing is known.
    Unknown,
    /// The handler ended its transaction before, so that its effects may be there. The outcome is recorded without an
    /// answer, so that they do not come twice.
    EndedByHandler,
}

impl Commit {
    /// A commit by `commit` of an answer of so many bytes. It calls [`CommitSent::mark`] as it sends the commit.
    pub fn new<F>(payload_len: usize, commit: impl FnOnce(CommitSent) -> F) -> Self
    where
        F: Future<Output = CommitOutcome> + Send + 'static,
    {
        let is_sent = Arc::<AtomicBool>::default();
        let committing = Box::pin(commit(CommitSent(is_sent.clone())));
        let granted = if payload_len > LARGE_PAYLOAD {
            deadline::time_for(payload_len)
        } else {
            Duration::ZERO
        };
        Self {
            committing,
            is_sent,
            granted,
        }
    }

    /// Carries it out, for `limit` at most, and longer by what a large answer takes.
    pub async fn within(self, limit: Duration) -> CommitOutcome {
        match tokio::time::timeout(limit + self.granted, self.committing).await {
            Ok(outcome) => outcome,
            Err(_elapsed) if self.is_sent.load(Ordering::Relaxed) => CommitOutcome::Unknown,
            Err(_elapsed) => CommitOutcome::RolledBack { may_pass: true },
        }
    }
}

impl std::fmt::Debug for Commit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commit").finish_non_exhaustive()
    }
}

impl CommitSent {
    /// The commit is about to be sent.
    pub fn mark(self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How a streamed answer ended.
pub struct Ending {
    /// For the record.
    pub outcome: Outcome,
    /// Dropped once the outcome is recorded, or could not be: what keeps the end of the answer from the client until
    /// a retry would find its outcome.
    pub until_recorded: Box<dyn Send>,
}

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ending")
            .field("outcome", &self.outcome)
            .finish_non_exhaustive()
    }
}

impl<A> std::fmt::Debug for Finished<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole { outcome, .. } => f
                .debug_struct("Whole")
                .field("outcome", outcome)
                .finish_non_exhaustive(),
            Self::Streaming { .. } => f.debug_struct("Streaming").finish_non_exhaustive(),
            Self::Unknown { .. } => f.debug_struct("Unknown").finish_non_exhaustive(),
            Self::Joint { .. } => f.debug_struct("Joint").finish_non_exhaustive(),
        }
    }
}

/// What became of a request's claim.
#[derive(Debug)]
pub enum Claimed {
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

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Executed<A> {
    /// The handler's answer.
    Answer {
        /// From the handler.
        answer: A,
        /// False where an outcome that is kept could not be recorded: because the backend failed, and recording is then
        /// tried again in the background, or because the claim had been superseded. Of a streamed answer it is not
        /// known yet, and of one that is released it does not matter.
        recorded: bool,
    },
    /// The claim was superseded, so that neither the answer nor the effects were recorded that it was joined to.
    Superseded,
    /// Neither the answer was recorded nor the effects that it was joined to: they were rolled back.
    RolledBack {
        /// Whether the same may succeed the next time.
        may_pass: bool,
    },
    /// Whether the answer was recorded, and the effects that it was joined to, is not known. A retry finds out.
    NotCommitted,
    /// The handler came to no end.
    Panicked,
}

/// How a run ended, for those who watch: what a retry finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// The answer: it is recorded.
    Completed,
    /// That there was an answer, which is not kept.
    NotStored,
    /// Nothing: the outcome is not one that is kept, and the retry runs.
    Released,
    /// That the outcome is unknown, once the lease has lapsed: [`Finished::Unknown`].
    Unknown,
    /// Nothing yet: the backend failed, and recording is tried again in the background.
    NotRecorded,
    /// What another attempt left: this one's claim was superseded before it ended.
    Superseded,
    /// Nothing: the effects were rolled back, and the retry runs.
    RolledBack {
        /// Whether the same may succeed the next time.
        may_pass: bool,
    },
    /// Whatever a commit left whose answer did not come: a completion, or nothing. Where the handler itself had ended its
    /// transaction, that there was an answer, which is not kept.
    NotCommitted,
    /// Nothing, or under [`AfterCrash::Refuse`] that the outcome is unknown: the handler panicked.
    Panicked,
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
        self.within_deadline(Call::Check, Policy::MAX_LEASE, self.0.backend.check())
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
    #[expect(clippy::manual_async_fn, reason = "an `async fn` has room for its arguments twice")]
    pub fn run<A, F, E>(self, handler: F, ended: E) -> impl Future<Output = Executed<A>> + Send
    where
        A: Send + 'static,
        F: Future<Output = Finished<A>> + Send + 'static,
        E: FnOnce(Ended) + Send + 'static,
    {
        async move { self.start(handler, ended).await }
    }

    fn start<A, F, E>(mut self, handler: F, ended: E) -> Attended<Executed<A>>
    where
        A: Send + 'static,
        F: Future<Output = Finished<A>> + Send + 'static,
        E: FnOnce(Ended) + Send + 'static,
    {
        let runtime = Handle::current();
        let work = Arc::new(Work {
            engine: self.pending.engine().clone(),
            key: self.pending.key().clone(),
            claim: self.pending.claim().clone(),
            after_crash: self.after_crash,
            span: Span::current(),
            _counted: InFlight::start(),
            settling: false.into(),
        });
        let Parts { renewer, running, .. } = &*work.engine.0;
        let renewals = renewer.renew(&work, &runtime, self.asked);
        let running = running.clone();
        self.pending.start();
        Attended::new(work.answer(renewals, handler, ended), runtime, running)
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
