//! What is known of the run of a handler that takes a `Joint`, and what became of its record.
//!
//! Owns what the argument and the end of the request tell each other. It is a part of the request's [`Slot`](super::Slot).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use idem_core::{Claim, Completion, RecordKey, Steps};
use idem_http::StoredAnswers;
use idem_http::answer::AnswerRules;

/// The state of a request's `Joint`.
#[derive(Default)]
pub(crate) struct JointState {
    is_wanted: AtomicBool,
    run: OnceLock<JointRun>,
    written: Mutex<Option<Written>>,
}

/// How a handler with a `Joint` runs.
pub(crate) enum JointRun {
    /// Under a claim, which it may complete in a transaction of its own.
    Claimed(Box<JointClaim>),
    /// Without a claim. Of the answers, these are kept by their status.
    Unprotected(StoredAnswers),
}

/// The claim of a handler that may complete it in a transaction.
#[derive(Clone)]
pub(crate) struct JointClaim {
    pub(crate) record: RecordKey,
    pub(crate) claim: Claim,
    /// The durable steps of the handler, if it has asked for them.
    pub(crate) steps: Option<Steps>,
    pub(crate) rules: AnswerRules,
}

impl JointClaim {
    /// The claim as it is now: with steps, if the handler has tried to record one.
    pub(crate) fn claim_now(&self) -> Claim {
        let now = self.steps.as_ref().and_then(Steps::claim);
        now.unwrap_or_else(|| self.claim.clone())
    }
}

/// What a handler has been told of its record.
pub(crate) enum Written {
    /// It is written in the handler's transaction, with this outcome.
    Completed(Completion),
    /// The claim was superseded, so the transaction has to be rolled back.
    Superseded,
}

impl JointState {
    /// An argument wants to write the record itself.
    pub(super) fn want(&self) {
        self.is_wanted.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    /// Tells such an argument how its handler runs, before it does.
    pub(crate) fn fill(&self, run: impl FnOnce() -> JointRun) {
        if self.is_wanted() {
            // A slot belongs to one handler, which runs at most once.
            let _ = self.run.set(run());
        }
    }

    pub(super) fn run(&self) -> Option<&JointRun> {
        self.run.get()
    }

    /// The claim of the run, if it has one.
    pub(super) fn claim(&self) -> Option<&JointClaim> {
        match self.run()? {
            JointRun::Claimed(claim) => Some(claim),
            JointRun::Unprotected(_) => None,
        }
    }

    /// Of two transactions, one of which was given up, the last one counts.
    pub(super) fn note_written(&self, written: Written) {
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = Some(written);
    }

    pub(super) fn take_written(&self) -> Option<Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
