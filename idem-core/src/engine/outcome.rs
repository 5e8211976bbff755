//! The result of a handler's run, as each component sees it.
//!
//! | type | says | to |
//! |---|---|---|
//! | [`HandlerResult`] | what the handler's future resolved to | the engine |
//! | [`RecordOutcome`] | what is written into the record | the backend |
//! | [`RunAnswer`] | what the client gets | the integration |
//! | [`RunOutcome`] | what a retry finds | logs and metrics |
//!
//! If a handler's effects are committed together with their record, the handler returns a [`Commit`]; the commit ends in a
//! [`CommitOutcome`]. Owns the types. Does not own how an outcome is recorded: [`recording`](super::recording).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::deadline::{self, LARGE_PAYLOAD};
#[cfg(doc)]
use crate::AfterCrash;
use crate::{Claim, Completion};

/// What happens to the record when a run ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordOutcome {
    /// The record is completed: duplicates get this from now on.
    Complete {
        /// The outcome.
        completion: Completion,
        /// How long the record is kept; `None` for the claim's `ttl`.
        keep_for: Option<Duration>,
    },
    /// The claim is released: the next request runs the handler as if it were the first (IDEM-11). If the record has steps, it is
    /// parked, and the next request goes on after them.
    Release,
}

impl RecordOutcome {
    /// The record is completed, and kept for the claim's `ttl`.
    #[must_use]
    pub const fn complete(completion: Completion) -> Self {
        Self::Complete {
            completion,
            keep_for: None,
        }
    }

    /// How long the record of `claim` is kept after it has this outcome.
    pub(super) fn ttl(&self, claim: &Claim) -> Duration {
        match self {
            Self::Complete { keep_for, .. } => keep_for.unwrap_or(claim.ttl),
            Self::Release => claim.ttl,
        }
    }
}

/// What a handler's future resolves to.
pub enum HandlerResult<A> {
    /// The answer is whole. The client gets it after its outcome is recorded, or after recording has failed.
    Whole {
        /// For the client.
        answer: A,
        /// For the record.
        outcome: RecordOutcome,
    },
    /// The answer can start before its outcome is known. The claim is held until then.
    Streaming {
        /// For the client, at once.
        answer: A,
        /// For the record, later. It is polled whether or not the client is still connected.
        outcome: BoxFuture<'static, StreamedOutcome>,
    },
    /// The answer is whole. `commit` records its outcome together with the handler's own effects, in one transaction.
    Joint {
        /// For the client, if the commit succeeds.
        answer: A,
        /// Commits the effects and the record.
        commit: Commit,
    },
}

/// The commit of a handler's effects together with their outcome.
///
/// The engine gives it up at the deadline. A commit that was not sent by then is certainly rolled back; a commit that was
/// sent may have happened. So the commit marks the moment at which it is sent, by [`CommitSent`].
pub struct Commit {
    committing: BoxFuture<'static, CommitOutcome>,
    is_sent: Arc<AtomicBool>,
    /// The time on top of the deadline, by the size of the answer.
    granted: Duration,
    /// What is recorded if the handler has ended its transaction itself.
    pub(super) ended_by_handler: Completion,
}

/// Marks the commit as sent.
#[derive(Debug)]
pub struct CommitSent(Arc<AtomicBool>);

/// The result of a [`Commit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommitOutcome {
    /// The effects and the record are committed.
    Committed,
    /// Nothing is committed, because the claim was superseded.
    Superseded,
    /// Nothing is committed, because the transaction was rolled back.
    RolledBack {
        /// Whether the same commit may succeed the next time.
        may_pass: bool,
    },
    /// It is unknown whether the transaction was committed.
    Unknown,
    /// The handler ended its transaction itself, so its effects may be committed. The record is completed without an answer,
    /// so that the effects do not happen twice.
    EndedByHandler,
}

impl Commit {
    /// A commit by `commit`, of an answer of `payload_len` bytes. `commit` must call [`CommitSent::mark`] just before it
    /// sends the commit.
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
            ended_by_handler: Completion::NotStored,
        }
    }

    /// Records that the outcome is unknown, and not that the answer was not kept, if the handler has ended its transaction itself.
    #[must_use]
    pub fn unknown_if_ended(mut self) -> Self {
        self.ended_by_handler = Completion::Unknown;
        self
    }

    /// Runs the commit for `limit` at most, plus the time that a large answer is granted.
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
    /// Marks the commit as sent. From now on, a commit that is given up may have happened.
    pub fn mark(self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The outcome of a streamed answer.
pub struct StreamedOutcome {
    /// For the record.
    pub outcome: RecordOutcome,
    /// Dropped after the outcome is recorded, or after recording has failed. The integration holds back the end of the answer
    /// until this is dropped, so that a client which has seen the end finds the outcome when it retries.
    pub until_recorded: Box<dyn Send>,
}

impl std::fmt::Debug for StreamedOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamedOutcome")
            .field("outcome", &self.outcome)
            .finish_non_exhaustive()
    }
}

impl<A> std::fmt::Debug for HandlerResult<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole { outcome, .. } => f
                .debug_struct("Whole")
                .field("outcome", outcome)
                .finish_non_exhaustive(),
            Self::Streaming { .. } => f.debug_struct("Streaming").finish_non_exhaustive(),
            Self::Joint { .. } => f.debug_struct("Joint").finish_non_exhaustive(),
        }
    }
}

/// What the client gets after a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunAnswer<A> {
    /// The handler's answer.
    Answer {
        /// From the handler.
        answer: A,
        /// `false` if the outcome should be kept and was not recorded, for one of two reasons: the backend failed, and
        /// recording is retried in the background; or the claim was superseded. Always `true` for a streamed answer, whose
        /// outcome is not known yet, and for a released claim.
        recorded: bool,
    },
    /// The claim was superseded. Neither the answer nor the handler's effects were committed.
    Superseded,
    /// The transaction was rolled back. Neither the answer nor the handler's effects were committed.
    RolledBack {
        /// Whether the same commit may succeed the next time.
        may_pass: bool,
    },
    /// It is unknown whether the answer and the handler's effects were committed. A retry finds out.
    NotCommitted,
    /// The handler panicked.
    Panicked,
}

/// The outcome of a run for logs and metrics: what a retry finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunOutcome {
    /// The answer is recorded. A retry gets it.
    Completed,
    /// The record is completed without the answer. A retry is told so.
    NotStored,
    /// The claim is released. A retry runs the handler.
    Released,
    /// The record is parked with its steps. A retry runs the handler, which goes on after them.
    Parked,
    /// The outcome is recorded as [`Completion::Unknown`]. A retry is told so.
    Unknown,
    /// The outcome is not recorded yet, because the backend failed. Recording is retried in the background.
    NotRecorded,
    /// The claim was superseded before the handler ended. A retry finds the record of another attempt.
    Superseded,
    /// The effects were rolled back and the claim is released. A retry runs the handler.
    RolledBack {
        /// Whether the same commit may succeed the next time.
        may_pass: bool,
    },
    /// The commit was not answered: a retry finds the completion or runs the handler. Or the handler had ended its
    /// transaction itself: the record is completed without the answer.
    NotCommitted,
    /// The handler panicked. A retry runs the handler; under [`AfterCrash::Refuse`] it is told that the outcome is unknown.
    Panicked,
}
