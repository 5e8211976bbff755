//! Wrong functions. Each is the right one with one thing changed before it or after it.

use std::time::Duration;

use crate::spec::{Call, Reply, State, Steps, Time, step};
use crate::{Claim, Completion, Fenced};

type Stepped = (State, Reply);

const APPLIED: Reply = Reply::Fenced(Fenced::Applied);
const SUPERSEDED: Reply = Reply::Fenced(Fenced::Superseded);

/// The claim that is in place.
fn held(state: &State) -> Option<&Claim> {
    match state {
        State::Claimed { claim, .. } => Some(claim),
        _ => None,
    }
}

/// Whether the outcome of `claim` is in place.
fn is_completed(state: &State, claim: &Claim) -> bool {
    matches!(state, State::Completed { claim: owner, .. } if owner.token == claim.token)
}

/// The same claim, which lapses at another time.
fn lapsing(state: &State, at: impl FnOnce(Time, Time) -> Time) -> State {
    let mut state = state.clone();
    if let State::Claimed { lapses, expires, .. } = &mut state {
        *lapses = at(*lapses, *expires);
    }
    state
}

/// The same outcome, which expires at another time.
fn expiring((mut state, reply): Stepped, at: impl FnOnce(&Claim) -> Time) -> Stepped {
    if let State::Completed { claim, expires, .. } = &mut state {
        *expires = at(claim);
    }
    (state, reply)
}

pub(super) fn claim_ignores_present(state: &State, now: Time, call: &Call) -> Stepped {
    match call {
        Call::Claim(_) => step(&State::Absent, now, call),
        _ => step(state, now, call),
    }
}

pub(super) fn lease_lapses_early(state: &State, now: Time, call: &Call) -> Stepped {
    let (after, reply) = step(state, now, call);
    let halved = |claim: &Claim| now.after(claim.lease / 2);
    match held(&after).map(halved) {
        Some(lapses) if reply == Reply::Acquired => (lapsing(&after, |_, _| lapses), reply),
        _ => (after, reply),
    }
}

pub(super) fn take_over_while_live(state: &State, now: Time, call: &Call) -> Stepped {
    match call {
        Call::TakeOver { .. } => step(&lapsing(state, |_, _| now), now, call),
        _ => step(state, now, call),
    }
}

pub(super) fn claim_over_completed(state: &State, now: Time, call: &Call) -> Stepped {
    match (call, state) {
        (Call::Claim(_), State::Completed { .. }) => step(&State::Absent, now, call),
        _ => step(state, now, call),
    }
}

pub(super) fn complete_changes_bytes(state: &State, now: Time, call: &Call) -> Stepped {
    let (mut after, reply) = step(state, now, call);
    if let (Call::Complete { .. }, State::Completed { completion, .. }) = (call, &mut after)
        && let Completion::Stored(payload) = completion
    {
        *completion = Completion::Stored(if payload[..] == [0] {
            [1][..].into()
        } else {
            [0][..].into()
        });
    }
    (after, reply)
}

pub(super) fn complete_expires_at_once(state: &State, now: Time, call: &Call) -> Stepped {
    match call {
        Call::Complete { .. } => expiring(step(state, now, call), |_| now.after(Duration::from_millis(1))),
        _ => step(state, now, call),
    }
}

pub(super) fn release_of_completed(state: &State, now: Time, call: &Call) -> Stepped {
    match call {
        Call::Release(claim) if is_completed(state, claim) => (State::Absent, APPLIED),
        _ => step(state, now, call),
    }
}

pub(super) fn renew_revives_completed(state: &State, now: Time, call: &Call) -> Stepped {
    match call {
        Call::Renew(claim) if is_completed(state, claim) => (State::claimed(claim, Steps::new(), now), APPLIED),
        _ => step(state, now, call),
    }
}

pub(super) fn lapsed_is_absent(state: &State, now: Time, call: &Call) -> Stepped {
    match (call, state) {
        (Call::Claim(_), State::Claimed { lapses, .. }) if *lapses <= now => step(&State::Absent, now, call),
        _ => step(state, now, call),
    }
}

pub(super) fn lease_never_lapses(state: &State, now: Time, call: &Call) -> Stepped {
    step(&lapsing(state, |_, expires| expires), now, call)
}

pub(super) fn renew_refuses_lapsed(state: &State, now: Time, call: &Call) -> Stepped {
    match (call, state) {
        (Call::Renew(_), State::Claimed { lapses, .. }) if *lapses <= now => (state.clone(), SUPERSEDED),
        _ => step(state, now, call),
    }
}

pub(super) fn take_over_without_compare(state: &State, now: Time, call: &Call) -> Stepped {
    match (call, held(state)) {
        (Call::TakeOver { claim, .. }, Some(held)) => {
            let (lapsed, claim) = (held.clone(), claim.clone());
            step(state, now, &Call::TakeOver { lapsed, claim })
        }
        _ => step(state, now, call),
    }
}

pub(super) fn complete_by_superseded(state: &State, now: Time, call: &Call) -> Stepped {
    match (call, held(state)) {
        (Call::Complete { completion, ttl, .. }, Some(held)) => {
            let (claim, completion, ttl) = (held.clone(), completion.clone(), *ttl);
            step(state, now, &Call::Complete { claim, completion, ttl })
        }
        _ => step(state, now, call),
    }
}

pub(super) fn complete_of_absent(state: &State, now: Time, call: &Call) -> Stepped {
    match (call, state.at(now)) {
        (Call::Complete { claim, .. }, State::Absent) => step(&State::claimed(claim, Steps::new(), now), now, call),
        _ => step(state, now, call),
    }
}

pub(super) fn release_by_superseded(state: &State, now: Time, call: &Call) -> Stepped {
    match (call, held(state)) {
        (Call::Release(_), Some(held)) => step(state, now, &Call::Release(held.clone())),
        _ => step(state, now, call),
    }
}

pub(super) fn renew_by_superseded(state: &State, now: Time, call: &Call) -> Stepped {
    match (call, held(state)) {
        (Call::Renew(_), Some(held)) => step(state, now, &Call::Renew(held.clone())),
        _ => step(state, now, call),
    }
}

pub(super) fn release_keeps_claim(state: &State, now: Time, call: &Call) -> Stepped {
    match call {
        Call::Release(_) => (state.clone(), step(state, now, call).1),
        _ => step(state, now, call),
    }
}

/// Treats an outcome as a release.
fn erases(outcome: &Completion, state: &State, now: Time, call: &Call) -> Stepped {
    match step(state, now, call) {
        (State::Completed { completion, .. }, reply) if completion == *outcome => (State::Absent, reply),
        stepped => stepped,
    }
}

pub(super) fn unknown_reruns(state: &State, now: Time, call: &Call) -> Stepped {
    erases(&Completion::Unknown, state, now, call)
}

pub(super) fn not_stored_reruns(state: &State, now: Time, call: &Call) -> Stepped {
    erases(&Completion::NotStored, state, now, call)
}

pub(super) fn claim_repeat_refused(state: &State, now: Time, call: &Call) -> Stepped {
    match (call, state.record(now)) {
        (Call::Claim(_), Some(record)) => (state.clone(), Reply::Existing(record)),
        _ => step(state, now, call),
    }
}

pub(super) fn claim_repeat_renews(state: &State, now: Time, call: &Call) -> Stepped {
    let (after, reply) = step(state, now, call);
    match call {
        Call::Claim(claim) if reply == Reply::Acquired => (State::claimed(claim, Steps::new(), now), reply),
        _ => (after, reply),
    }
}

pub(super) fn complete_repeat_refused(state: &State, now: Time, call: &Call) -> Stepped {
    match call {
        Call::Complete { claim, .. } if is_completed(state, claim) => (state.clone(), SUPERSEDED),
        _ => step(state, now, call),
    }
}

pub(super) fn complete_ignores_ttl(state: &State, now: Time, call: &Call) -> Stepped {
    match (call, held(state)) {
        (Call::Complete { .. }, Some(_)) => expiring(step(state, now, call), |claim| now.after(claim.ttl)),
        _ => step(state, now, call),
    }
}

pub(super) fn complete_keeps_lease_expiry(state: &State, now: Time, call: &Call) -> Stepped {
    match (call, state) {
        (Call::Complete { .. }, State::Claimed { expires, .. }) => expiring(step(state, now, call), |_| *expires),
        _ => step(state, now, call),
    }
}

pub(super) fn complete_repeat_prolongs(state: &State, now: Time, call: &Call) -> Stepped {
    match call {
        Call::Complete { ttl, claim, .. } if is_completed(state, claim) => {
            expiring(step(state, now, call), |_| now.after(*ttl))
        }
        _ => step(state, now, call),
    }
}

pub(super) fn read_prolongs(state: &State, now: Time, call: &Call) -> Stepped {
    match call {
        Call::Read | Call::Claim(_) => match step(state, now, call) {
            unchanged @ (State::Completed { .. }, _) => expiring(unchanged, |claim| now.after(claim.ttl)),
            claimed => claimed,
        },
        _ => step(state, now, call),
    }
}
