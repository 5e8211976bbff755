//! What a handler's run comes to, for each of those who want to know.
//!
//! | type | says | to |
//! |---|---|---|
//! | [`HandlerResult`] | what the handler's future resolved to | the engine |
//! | [`RecordOutcome`] | what is written into the record | the backend |
//! | [`RunAnswer`] | what the client gets | the integration |
//! | [`RunOutcome`] | what a retry finds | logs and figures |
//!
//! A handler whose effects are committed together with their record has a [`Commit`], which ends in a [`CommitOutcome`].

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::deadline::{self, LARGE_PAYLOAD};
#[cfg(doc)]
use crate::AfterCrash;
use crate::Completion;

/// How a run ended, for its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordOutcome {
    /// Kept: duplicates get this from now on.
    Complete(Completion),
    /// Not kept: the next request runs again, as the first did (IDEM-11).
    Release,
}

/// What a handler's future resolves to.
pub enum HandlerResult<A> {
    /// The answer is whole. It is handed out once its outcome is recorded, or could not be.
    Whole {
        /// For the client.
        answer: A,
        /// For the record.
        outcome: RecordOutcome,
    },
    /// The answer can start before its outcome is known. The claim is held until the outcome is.
    Streaming {
        /// For the client, at once.
        answer: A,
        /// For the record, later; polled whether or not the client is still there.
        outcome: BoxFuture<'static, StreamedOutcome>,
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
pub struct StreamedOutcome {
    /// For the record.
    pub outcome: RecordOutcome,
    /// Dropped once the outcome is recorded, or could not be: what keeps the end of the answer from the client until
    /// a retry would find its outcome.
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
            Self::Unknown { .. } => f.debug_struct("Unknown").finish_non_exhaustive(),
            Self::Joint { .. } => f.debug_struct("Joint").finish_non_exhaustive(),
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunAnswer<A> {
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
pub enum RunOutcome {
    /// The answer: it is recorded.
    Completed,
    /// That there was an answer, which is not kept.
    NotStored,
    /// Nothing: the outcome is not one that is kept, and the retry runs.
    Released,
    /// That the outcome is unknown, once the lease has lapsed: [`HandlerResult::Unknown`].
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
