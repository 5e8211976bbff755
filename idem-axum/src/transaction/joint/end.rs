//! The end of a request whose handler has written its record by itself.
//!
//! Owns the question whether the handler has committed. A success is sent only if it has.
//!
//! | the claim | what is known | the client gets |
//! |---|---|---|
//! | is completed | committed | the answer |
//! | is in place, and can be released | rolled back: the release waits for the end of a transaction that has completed the claim | 500 `rolled-back` |
//! | is in place, and cannot be released | the transaction ended meanwhile: ask again | by the answer |
//! | is gone | nothing: the record may have expired since | 503 `not-committed` |
//! | cannot be looked at | nothing | 503 `not-committed` |
//!
//! A handler that was told that its claim was superseded has rolled back, or should have:
//!
//! | the claim | what is known | the client gets |
//! |---|---|---|
//! | is gone, or cannot be looked at | another attempt has the record | 409 `in-flight` |
//! | is completed | the record is this attempt's after all | the answer of a success, or else 409 `in-flight` |
//! | is in place, and the handler says so | the statement did not reach the record | 500 `rolled-back` |
//! | is in place, and the handler answers with a success | the rows may be committed, without a record | 503 `not-committed`, and retries get `response-not-stored` |

use std::error::Error;

use axum::response::Response;
use idem_core::{
    BackendError, Claim, Commit, CommitOutcome, Completion, Fenced, HandlerResult, RecordKey, RecordOutcome,
};
use idem_http::body::made;
use idem_http::{IdempotencyProblem, Verdict};
use idem_sql::SqlBackend;

use super::OfJoint;
use super::state::Written;
use crate::transaction::Slot;
use crate::transaction::ending::{Answer, is_done, released};

/// What a handler was told of its record, and whether its answer goes by that.
pub(in crate::transaction) struct ToldEnd {
    written: Written,
    /// The answer is that of [`JointRecord::written`](super::JointRecord::written), or of its error. Otherwise it is a success that
    /// the handler has made anew.
    is_marked: bool,
}

impl Slot {
    /// What the handler was told of its record; none for answers that have nothing to do with it, such as that of a handler that
    /// could not commit. Takes the mark off the answer.
    pub(in crate::transaction) fn told_end(&self, response: &mut Response) -> Option<ToldEnd> {
        let is_marked = response.extensions_mut().remove::<OfJoint>().is_some();
        let written = self.joint().take_written()?;
        let verdict = response.extensions().get::<Verdict>().copied();
        let counts = is_marked || is_done(response.status(), verdict);
        counts.then_some(ToldEnd { written, is_marked })
    }

    /// Ends a request whose handler has written its record by itself.
    pub(in crate::transaction) fn end_joint(
        &self,
        told: ToldEnd,
        result: HandlerResult<Answer>,
    ) -> HandlerResult<Answer> {
        let (Some(backend), Some(claimed)) = (self.sql().backend().cloned(), self.joint().claim()) else {
            return result;
        };
        let (key, claim) = (claimed.record.clone(), claimed.claim_now());
        let HandlerResult::Whole { answer, outcome } = result else {
            tracing::error!(
                key = %key.shown(),
                "a handler answered with a stream after its answer was written by a Joint; return the answer as it is"
            );
            return released(made(self.settings().problem(IdempotencyProblem::NotConfigured)));
        };
        let looking = Looking { backend, key, claim };
        let commit = match told.written {
            Written::Completed(recorded) => {
                if !is_of(&outcome, &recorded) {
                    tracing::error!(
                        key = %looking.key.shown(),
                        "a handler changed its answer after it was written by a Joint, so replays differ from it; return the \
                         answer as it is"
                    );
                }
                Commit::new(0, |sent| async move {
                    // The handler may have sent its commit.
                    sent.mark();
                    looking.committed().await
                })
            }
            Written::Superseded => Commit::new(0, move |sent| async move {
                sent.mark();
                looking.superseded(told.is_marked).await
            }),
        };
        HandlerResult::Joint { answer, commit }
    }
}

fn is_of(outcome: &RecordOutcome, recorded: &Completion) -> bool {
    matches!(outcome, RecordOutcome::Complete { completion, .. } if completion == recorded)
}

/// A claim that a handler had to end, to be looked at.
struct Looking {
    backend: SqlBackend,
    key: RecordKey,
    claim: Claim,
}

impl Looking {
    async fn is_completed(&self) -> Result<Option<bool>, BackendError> {
        self.backend.is_completed(&self.key, &self.claim).await
    }

    async fn release(&self) -> Result<bool, BackendError> {
        Ok(self.backend.release(&self.key, &self.claim).await? == Fenced::Applied)
    }

    /// The end of a transaction in which the claim was completed.
    async fn committed(self) -> CommitOutcome {
        let found = self.find_commit().await;
        found.unwrap_or_else(|error| {
            let error: &dyn Error = &error;
            tracing::warn!(key = %self.key.shown(), error, "whether a Joint was committed is not known");
            CommitOutcome::Unknown
        })
    }

    async fn find_commit(&self) -> Result<CommitOutcome, BackendError> {
        let mut is_completed = self.is_completed().await?;
        if is_completed == Some(false) {
            if self.release().await? {
                tracing::error!(
                    key = %self.key.shown(),
                    "a handler answered as if its Joint were committed, and it is not; commit before you answer, and answer with an \
                     error if the commit fails"
                );
                return Ok(CommitOutcome::RolledBack { may_pass: false });
            }
            is_completed = self.is_completed().await?;
        }
        if is_completed == Some(true) {
            return Ok(CommitOutcome::Committed);
        }
        tracing::warn!(
            key = %self.key.shown(),
            "whether a Joint was committed is not known, because its record is gone"
        );
        Ok(CommitOutcome::Unknown)
    }

    /// The end of a transaction whose statement has changed no row.
    async fn superseded(self, is_rolled_back: bool) -> CommitOutcome {
        let key = self.key.shown();
        let is_completed = self.is_completed().await.unwrap_or(None);
        if is_completed == Some(false) {
            tracing::error!(
                %key,
                "the statement of a Joint changed no row, and its claim is in place; execute it once, in the database of the \
                 records, as a role that sees them, and pass on the number of rows"
            );
            if is_rolled_back {
                return CommitOutcome::RolledBack { may_pass: false };
            }
            return CommitOutcome::EndedByHandler;
        }
        if is_rolled_back {
            return CommitOutcome::Superseded;
        }
        if is_completed == Some(true) {
            return CommitOutcome::Committed;
        }
        tracing::error!(
            %key,
            "a handler answered with a success although another attempt had taken its claim over, so it may have taken effect \
             twice; roll back where `JointRecord::written` is an error"
        );
        CommitOutcome::Superseded
    }
}
