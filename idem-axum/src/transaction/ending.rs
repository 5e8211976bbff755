//! How a transaction ends with its handler's answer.
//!
//! Owns the sorting of answers; `mod.rs` has the table. Does not own commits, nor what the database says: [`idem_sql`].

use std::future::Future;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use idem_core::{CommitOutcome, Completion, HandlerResult, RecordOutcome};
use idem_http::answer;
use idem_http::body::made;
use idem_http::{IdempotencyProblem, ResponseBody, StoredAnswers, Verdict};
use idem_sql::{Left, commit_alone, commit_with_record, roll_back, roll_back_unrecorded};

use super::joint::{JointClaim, JointRun};
use super::slot::Slot;

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
        let transaction = match self.sql().close() {
            Left::Nothing => return result,
            Left::Transaction(transaction) => transaction,
            Left::InUse => return released(self.outlived()),
        };
        let Some(backend) = self.sql().backend().cloned() else {
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
            undone => roll_back(transaction, &claimed.record, undone, Completion::NotStored).await,
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
        let transaction = match self.sql().close() {
            Left::Nothing => return response,
            Left::Transaction(transaction) => transaction,
            Left::InUse => return self.outlived(),
        };
        if !is_kept || !is_done(response.status(), verdict) {
            roll_back_unrecorded(transaction).await;
            return response;
        }
        let settings = self.settings();
        match commit_alone(transaction).within(deadline).await {
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

/// Whether the work is committed with an answer that is kept: the status says that what was asked for was done, or the verdict
/// on a refusal or a failure says that what was done stays.
pub(super) fn is_done(status: StatusCode, verdict: Option<Verdict>) -> bool {
    let failed = || status.is_client_error() || status.is_server_error();
    status.is_success() || status.is_redirection() || (failed() && verdict.is_some_and(Verdict::keeps))
}

pub(super) fn released(answer: Answer) -> HandlerResult<Answer> {
    let outcome = RecordOutcome::Release;
    HandlerResult::Whole { answer, outcome }
}
