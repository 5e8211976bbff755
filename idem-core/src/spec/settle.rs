//! An operator's settlement in the specification: clauses 25 to 28.

use std::time::{Duration, SystemTime};

use super::{Reply, State, Time};
use crate::inspect::{LiveClaim, RecordVersion, Settled, Settlement, StepChange};
use crate::{Claim, Completion, Token};

/// Clauses 25 to 28. The owner of the claim that was there is superseded, because its token is not in place any more, or is that of
/// a parked claim.
pub(super) fn settle(
    state: &State,
    now: Time,
    version: RecordVersion,
    settlement: &Settlement,
    live: LiveClaim,
) -> (State, Reply) {
    let applied = Reply::Settled(Settled::Applied);
    // Clause 27: repeated, it is applied, and changes nothing.
    let leaves = |there: RecordVersion| settlement.leaves().is_some_and(|left| left.is_of_same_claim(&there));
    if state.version().is_some_and(leaves) {
        return (state.clone(), applied);
    }
    if state.version() != Some(version) {
        return (state.clone(), Reply::Settled(Settled::Changed));
    }
    match state {
        State::Claimed { lapses, .. } if live == LiveClaim::Refuse && now < *lapses => {
            let left = lapses.left_at(now);
            return (state.clone(), Reply::Settled(Settled::Live(left)));
        }
        _ => {}
    }
    let settled = match settlement {
        Settlement::Forget => State::Absent,
        Settlement::Rerun { token, began_at, step } => rerun(state, now, (*token, *began_at), step.as_ref()),
        Settlement::Complete { token, completion, ttl } => completed_by_operator(state, now, *token, completion, *ttl),
    };
    (settled, applied)
}

/// Clause 26: the steps are kept, but for the one that is changed.
fn rerun(state: &State, now: Time, (token, began_at): (Token, SystemTime), change: Option<&StepChange>) -> State {
    let (State::Claimed { claim, steps, .. } | State::Parked { claim, steps, .. }) = state else {
        return State::Absent;
    };
    let mut steps = steps.clone();
    match change {
        Some(StepChange::Done { name, step }) => drop(steps.insert(name.clone(), step.clone())),
        Some(StepChange::NotDone { name }) => drop(steps.remove(name)),
        None => {}
    }
    if steps.is_empty() {
        return State::Absent;
    }
    let has_steps = true;
    let claim = Claim {
        token,
        began_at,
        has_steps,
        ..claim.clone()
    };
    let expires = now.after(claim.ttl);
    State::Parked { claim, expires, steps }
}

/// Clause 27.
fn completed_by_operator(state: &State, now: Time, token: Token, completion: &Completion, ttl: Duration) -> State {
    match state {
        State::Absent => State::Absent,
        State::Claimed { claim, .. } | State::Parked { claim, .. } | State::Completed { claim, .. } => {
            State::Completed {
                claim: Claim { token, ..claim.clone() },
                completion: completion.clone(),
                expires: now.after(ttl),
            }
        }
    }
}
