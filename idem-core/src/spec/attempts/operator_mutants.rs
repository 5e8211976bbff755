//! Stores that are wrong about an operator, for [`MUTANTS`](super::MUTANTS).

use super::world::{B, DONE};
use crate::inspect::{LiveClaim, RecordVersion, Settled, Settlement};
use crate::spec::{Call, Reply, State, Time, step};

/// The settlement with a version and a force that `change` has changed.
fn settled(
    (state, now, call): (&State, Time, &Call),
    change: impl FnOnce(&mut RecordVersion, &mut LiveClaim, &mut Settlement),
) -> (State, Reply) {
    let mut call = call.clone();
    if let Call::Settle {
        version,
        live,
        settlement,
    } = &mut call
    {
        change(version, live, settlement);
    }
    step(state, now, &call)
}

pub(super) fn settle_unfenced(state: &State, now: Time, call: &Call) -> (State, Reply) {
    settled((state, now, call), |version, _, _| {
        *version = state.version().unwrap_or(*version);
    })
}

pub(super) fn settle_by_token(state: &State, now: Time, call: &Call) -> (State, Reply) {
    let there = state.version();
    settled((state, now, call), |version, _, _| {
        *version = there.filter(|there| there.token == version.token).unwrap_or(*version);
    })
}

pub(super) fn settle_any_steps(state: &State, now: Time, call: &Call) -> (State, Reply) {
    let there = state.version();
    settled((state, now, call), |version, _, _| {
        *version = there
            .filter(|there| there.is_of_same_claim(version))
            .unwrap_or(*version);
    })
}

pub(super) fn settle_live(state: &State, now: Time, call: &Call) -> (State, Reply) {
    settled((state, now, call), |_, live, _| *live = LiveClaim::Force)
}

pub(super) fn rerun_forgets(state: &State, now: Time, call: &Call) -> (State, Reply) {
    let (mut after, reply) = step(state, now, call);
    if matches!(call, Call::Settle { .. })
        && let State::Parked { steps, .. } = &mut after
    {
        steps.clear();
    }
    (after, reply)
}

pub(super) fn rerun_keeps_owner(state: &State, now: Time, call: &Call) -> (State, Reply) {
    let (after, reply) = step(state, now, call);
    match call {
        Call::Settle {
            settlement: Settlement::Rerun { .. },
            ..
        } => (state.clone(), reply),
        _ => (after, reply),
    }
}

pub(super) fn settle_keeps_token(state: &State, now: Time, call: &Call) -> (State, Reply) {
    settled((state, now, call), |version, _, settlement| {
        if let Settlement::Complete { token, .. } = settlement {
            *token = version.token;
        }
    })
}

pub(super) fn settle_loses_outcome(state: &State, now: Time, call: &Call) -> (State, Reply) {
    let (after, reply) = step(state, now, call);
    match call {
        Call::Settle {
            settlement: Settlement::Complete { .. },
            ..
        } if reply == Reply::Settled(Settled::Applied) => (State::Absent, reply),
        _ => (after, reply),
    }
}

/// What a forgotten record leaves is found by the next claim.
pub(super) fn forget_leaves_steps(state: &State, now: Time, call: &Call) -> (State, Reply) {
    let (mut after, reply) = step(state, now, call);
    if matches!(state, State::Absent)
        && matches!(call, Call::Claim(claim) if claim.token != crate::Token::from_bytes([0; crate::Token::LEN]))
        && let State::Claimed { steps, .. } = &mut after
    {
        steps.insert(B.to_owned(), DONE);
    }
    (after, reply)
}
