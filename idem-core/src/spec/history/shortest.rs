//! The shortest part of a history that is still not explained.
//!
//! Owns which calls may be left out. A part must not be unexplained merely because a call is missing from it, so only two kinds of
//! calls go: those whose reply says that they changed nothing, and open ones. A call of either kind stays if the reply to another
//! call shows what it would have written.

use bytes::Bytes;

use super::operations::{Action, Operation};
use super::search::{Verdict, changes_nothing, explain};
use super::{Call, Reply};
use crate::{Completion, Record, Token};

/// How many positions are tried for each part.
const STEPS: usize = 50_000;

/// The shortest unexplained prefix, without the calls that do not matter. The operations must be unexplained.
pub(super) fn shorten(operations: &[Operation]) -> Vec<Operation> {
    let mut left = shortest_prefix(operations);
    loop {
        let before = left.len();
        for at in (0..left.len()).rev() {
            if !may_go(&left, at) {
                continue;
            }
            let mut without = left.clone();
            without.remove(at);
            if explain(&without, STEPS) == Verdict::Unexplained {
                left = without;
            }
        }
        if left.len() == before {
            return left;
        }
    }
}

/// Up to the first return that cannot be explained. Calls that return later are open in it.
fn shortest_prefix(operations: &[Operation]) -> Vec<Operation> {
    let certain = operations.iter().filter(|operation| operation.is_certain());
    let mut ends: Vec<_> = certain.map(|operation| operation.until).collect();
    ends.sort_unstable();
    let prefix = |end| {
        let begun = operations.iter().filter(|operation| operation.from <= end).cloned();
        let cut = |operation: Operation| {
            if operation.is_certain() && operation.until > end {
                operation.opened()
            } else {
                operation
            }
        };
        begun.map(cut).collect::<Vec<_>>()
    };
    // A prefix of an explained history is explained.
    let first = ends.partition_point(|end| explain(&prefix(*end), STEPS) != Verdict::Unexplained);
    ends.get(first).map_or_else(|| operations.to_vec(), |end| prefix(*end))
}

fn may_go(operations: &[Operation], at: usize) -> bool {
    let operation = &operations[at];
    let Action::Call { call, reply, .. } = &operation.action else {
        return false;
    };
    if reply.is_some() && !changes_nothing(operation) {
        return false;
    }
    let mut others = operations.iter().enumerate().filter(|(other, _)| *other != at);
    !others.any(|(_, other)| match call {
        Call::Complete { claim, completion, .. } => shows_outcome(other, completion) || shows_claim(other, claim.token),
        // Such calls write nothing that another call could find.
        Call::Renew(_) | Call::Release(_) | Call::RecordStep { .. } | Call::ReadSteps(_) | Call::Park(_)
            if reply.is_some() =>
        {
            false
        }
        Call::RecordStep { claim, name, step } => shows_step(other, name, step) || shows_claim(other, claim.token),
        call => call.claim().is_some_and(|claim| shows_claim(other, claim.token)),
    })
}

/// The record that the reply of a call has shown.
fn found(operation: &Operation) -> Option<&Record> {
    match &operation.action {
        Action::Call {
            reply: Some(Reply::Existing(record) | Reply::Found(Some(record))),
            ..
        } => Some(record),
        _ => None,
    }
}

fn shows_outcome(operation: &Operation, outcome: &Completion) -> bool {
    matches!(found(operation), Some(Record::Completed { completion, .. }) if completion == outcome)
}

/// Whether the reply says that this step was recorded.
fn shows_step(operation: &Operation, name: &str, step: &Bytes) -> bool {
    match &operation.action {
        Action::Call {
            reply: Some(Reply::Steps(Some(steps))),
            ..
        } => steps.get(name) == Some(step),
        _ => false,
    }
}

/// Whether the reply says that the claim with this `token` was in place, or parked.
fn shows_claim(operation: &Operation, token: Token) -> bool {
    if let Some(Record::Claimed { claim, .. } | Record::Parked { claim }) = found(operation) {
        return claim.token == token;
    }
    match &operation.action {
        Action::Call {
            call: Call::ReadSteps(claim),
            reply: Some(Reply::Steps(Some(_))),
            ..
        } => claim.token == token,
        Action::Call {
            call,
            reply: Some(reply),
            ..
        } if !changes_nothing(operation) => {
            let lapsed = match (call, reply) {
                (Call::TakeOver { lapsed, .. }, Reply::Acquired) => Some(lapsed),
                _ => None,
            };
            [call.claim(), lapsed]
                .into_iter()
                .flatten()
                .any(|claim| claim.token == token)
        }
        _ => false,
    }
}
