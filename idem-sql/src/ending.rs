//! How a transaction ends with the outcome of its work.
//!
//! Owns the sorting of what the database says. Does not own which outcomes are committed: the integration decides that. Nor the
//! statements: they are the backends'.

use std::error::Error;
use std::time::Duration;

use idem_core::{
    Claim, Commit, CommitOutcome, Completion, EndError, EndKind, Fenced, HandlerResult, RecordKey, RecordOutcome,
};

use crate::database::{Begun, SqlBackend};

/// The commit of a transaction together with the record of its outcome.
#[must_use]
pub fn commit_with_record(
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

/// The commit of a transaction whose work runs without a claim.
#[must_use]
pub fn commit_alone(transaction: Begun) -> Commit {
    Commit::new(0, |sent| async move {
        match transaction.commit(|| sent.mark()).await {
            Ok(()) => CommitOutcome::Committed,
            Err(error) => sort_refusal(&error, None),
        }
    })
}

/// Rolls back what was done with an outcome that does not commit it. `ended_by_handler` is recorded in place of a release if the handler
/// has ended its transaction itself.
pub async fn roll_back<A>(
    transaction: Begun,
    record: &RecordKey,
    result: HandlerResult<A>,
    ended_by_handler: Completion,
) -> HandlerResult<A> {
    match (transaction.roll_back().await, result) {
        // The handler has committed by itself, and that must not come twice.
        (Err(error), HandlerResult::Whole { answer, outcome }) => {
            sort_refusal(&error, Some(record));
            let outcome = match outcome {
                RecordOutcome::Release => RecordOutcome::complete(ended_by_handler),
                kept @ RecordOutcome::Complete { .. } => kept,
            };
            HandlerResult::Whole { answer, outcome }
        }
        (_, result) => result,
    }
}

/// Rolls back what was done without a claim.
pub async fn roll_back_unrecorded(transaction: Begun) {
    if let Err(error) = transaction.roll_back().await {
        sort_refusal(&error, None);
    }
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
