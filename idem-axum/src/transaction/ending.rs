//! How a transaction ends with its handler's answer.
//!
//! Owns the sorting of answers and of what the database says; `mod.rs` has the table. Does not own the statements: they are the
//! backends'.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use idem_core::{
    Claim, Commit, CommitOutcome, Completion, EndError, EndKind, Fenced, HandlerResult, RecordKey, RecordOutcome,
};
use idem_http::answer;
use idem_http::body::made;
use idem_http::{IdempotencyProblem, ResponseBody, StoredAnswers, Verdict};

use super::database::{Begun, SqlBackend};
use super::joint::{JointClaim, JointRun};
use super::slot::{Left, Slot};

/// An answer, as `idem-http` has it.
pub(super) type Answer = Response<ResponseBody<Body>>;

impl Slot {
    /// Runs the handler of a claim; what it did in a transaction is committed with its outcome.
    pub(crate) async fn join(
        self,
        handler: impl Future<Output = Response>,
        claimed: JointClaim,
    ) -> HandlerResult<Answer> {
        self.joint().fill(|| JointRun::Claimed(Box::new(claimed.clone())));
        let mut response = handler.await;
        let told = self.told_end(&mut response);
        let verdict = response.extensions().get().copied();
        let result = answer::finish(response, &claimed.rules);
        if let Some(told) = told {
            return self.end_joint(told, result);
        }
        let transaction = match self.close() {
            Left::Nothing => return result,
            Left::Transaction(transaction) => transaction,
            Left::InUse => return released(self.outlived()),
        };
        let Some(backend) = self.backend().cloned() else {
            return result;
        };
        match result {
            HandlerResult::Whole {
                answer,
                outcome: RecordOutcome::Complete { completion, keep_for },
            } if completion != Completion::Unknown && is_done(answer.status(), verdict) => {
                let claim = claimed.claim_now();
                let ttl = keep_for.unwrap_or(claim.ttl);
                let commit = commit_with_record(backend, transaction, (claimed.record, claim), (completion, ttl));
                HandlerResult::Joint { answer, commit }
            }
            HandlerResult::Streaming { .. } => {
                let _ = transaction.roll_back().await;
                tracing::error!(
                    key = %claimed.record.shown(),
                    "a handler with a Transaction answered with a stream, and was rolled back; collect the answer"
                );
                released(made(self.settings().problem(IdempotencyProblem::NotConfigured)))
            }
            undone => roll_back(transaction, &claimed.record, undone).await,
        }
    }

    /// Runs a handler without a claim, whose answer has no markers and has its verdict still; what it did in a transaction is committed if it would be together with a record.
    pub(crate) async fn run_unprotected(
        self,
        handler: impl Future<Output = Response>,
        stored: StoredAnswers,
        deadline: Duration,
    ) -> Answer {
        self.joint().fill(|| JointRun::Unprotected(stored));
        let (head, body) = handler.await.into_parts();
        let verdict = head.extensions.get().copied();
        let is_kept = answer::is_kept(&head, verdict, stored);
        let response = Response::from_parts(head, ResponseBody::own(body));
        let transaction = match self.close() {
            Left::Nothing => return response,
            Left::Transaction(transaction) => transaction,
            Left::InUse => return self.outlived(),
        };
        if !is_kept || !is_done(response.status(), verdict) {
            if let Err(error) = transaction.roll_back().await {
                sort_refusal(&error, None);
            }
            return response;
        }
        let settings = self.settings();
        let commit = Commit::new(0, |sent| async move {
            match transaction.commit(|| sent.mark()).await {
                Ok(()) => CommitOutcome::Committed,
                Err(error) => sort_refusal(&error, None),
            }
        });
        match commit.within(deadline).await {
            CommitOutcome::Committed => response,
            CommitOutcome::RolledBack { may_pass } => {
                made(settings.problem(IdempotencyProblem::RolledBack { may_pass }))
            }
            CommitOutcome::Superseded | CommitOutcome::Unknown | CommitOutcome::EndedByHandler => {
                made(settings.not_committed_unprotected())
            }
        }
    }

    /// The transaction is still in use after its handler has ended, so that it can be neither committed nor waited for.
    fn outlived(&self) -> Answer {
        tracing::error!("a Transaction outlived its handler, and is rolled back; end what uses it before answering");
        made(self.settings().problem(IdempotencyProblem::NotConfigured))
    }
}

/// The commit of a transaction together with the record of its answer.
fn commit_with_record(
    backend: SqlBackend,
    transaction: Begun,
    (record, claim): (RecordKey, Claim),
    (completion, ttl): (Completion, Duration),
) -> Commit {
    let len = match &completion {
        Completion::Stored(payload) => payload.len(),
        Completion::NotStored | Completion::Unknown => 0,
    };
    Commit::new(len, move |sent| async move {
        let on_sent = || sent.mark();
        let committed = transaction
            .complete(&backend, (&record, &claim), (&completion, ttl), on_sent)
            .await;
        match committed {
            Ok(Fenced::Applied) => CommitOutcome::Committed,
            Ok(Fenced::Superseded) => CommitOutcome::Superseded,
            Err(error) => sort_refusal(&error, Some(&record)),
        }
    })
}

/// Rolls back what a handler did whose answer does not commit it.
async fn roll_back(transaction: Begun, record: &RecordKey, result: HandlerResult<Answer>) -> HandlerResult<Answer> {
    match (transaction.roll_back().await, result) {
        // The handler has committed by itself, and that must not come twice.
        (Err(error), HandlerResult::Whole { answer, outcome }) => {
            sort_refusal(&error, Some(record));
            let outcome = match outcome {
                RecordOutcome::Release => RecordOutcome::complete(Completion::NotStored),
                kept @ RecordOutcome::Complete { .. } => kept,
            };
            HandlerResult::Whole { answer, outcome }
        }
        (_, result) => result,
    }
}

/// Whether the work is committed with an answer that is kept: the status says that what was asked for was done, or the verdict
/// on a refusal or a failure says that what was done stays.
pub(super) fn is_done(status: StatusCode, verdict: Option<Verdict>) -> bool {
    let failed = || status.is_client_error() || status.is_server_error();
    status.is_success() || status.is_redirection() || (failed() && verdict.is_some_and(Verdict::keeps))
}

/// What is known where the database did not commit, with a line in the log that says why and what to do.
pub(crate) fn sort_refusal(error: &EndError, record: Option<&RecordKey>) -> CommitOutcome {
    let key = record.map(RecordKey::shown).map(tracing::field::display);
    let cause = error as &dyn Error;
    match error.kind() {
        EndKind::MayPass => {
            tracing::warn!(
                key,
                error = cause,
                "a Transaction was rolled back, and its client was told to try again"
            );
            CommitOutcome::RolledBack { may_pass: true }
        }
        EndKind::Unknown => {
            tracing::warn!(key, error = cause, "whether a Transaction was committed is not known");
            CommitOutcome::Unknown
        }
        EndKind::FailedBefore => {
            tracing::error!(
                key,
                error = cause,
                "a handler's answer was to be committed although a statement of its Transaction had failed, so all of it was \
                 rolled back; answer with an error where a statement fails, or put a statement that may fail into a savepoint: \
                 `connection.begin()`"
            );
            CommitOutcome::RolledBack { may_pass: false }
        }
        EndKind::EndedByHandler => {
            tracing::error!(
                key,
                error = cause,
                "a handler ended its Transaction itself, so its rows and its record cannot be one; leave COMMIT and ROLLBACK to \
                 the Transaction, and do not give up a `connection.begin()` half-way"
            );
            CommitOutcome::EndedByHandler
        }
        _ => {
            tracing::error!(
                key,
                error = cause,
                "the database refused the commit of a Transaction, and will refuse it again; check for this in the handler, \
                 and answer with an error"
            );
            CommitOutcome::RolledBack { may_pass: false }
        }
    }
}

pub(super) fn released(answer: Answer) -> HandlerResult<Answer> {
    let outcome = RecordOutcome::Release;
    HandlerResult::Whole { answer, outcome }
}
