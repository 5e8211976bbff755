//! Wrong stores and wrong engines. Each has one thing changed, and breaks a rule.

use super::world::Rule;
use crate::Fenced;
use crate::spec::{Call, Reply, State, Steps, Time, step};

/// One thing that is changed.
pub struct Mutant {
    /// What is changed.
    pub name: &'static str,
    /// The rule that then does not hold.
    pub breaks: Rule,
    /// The store's function.
    pub(super) step: fn(&State, Time, &Call) -> (State, Reply),
    /// The engine releases where it should park.
    pub(super) releases: bool,
    /// The engine does not record the start of step `b`.
    pub(super) skips_start: bool,
    /// The engine calls the body of a step again that was begun.
    pub(super) reruns_started: bool,
}

impl std::fmt::Debug for Mutant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mutant")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Nothing is changed.
pub(super) const NONE: Mutant = Mutant {
    name: "nothing",
    breaks: Rule::RunsTwice,
    step,
    releases: false,
    skips_start: false,
    reruns_started: false,
};

const fn store(name: &'static str, breaks: Rule, step: fn(&State, Time, &Call) -> (State, Reply)) -> Mutant {
    Mutant {
        name,
        breaks,
        step,
        ..NONE
    }
}

/// Each of them.
pub const MUTANTS: &[Mutant] = &[
    store(
        "a step is recorded by any attempt",
        Rule::SupersededRecords,
        record_unfenced,
    ),
    store(
        "a takeover drops the steps",
        Rule::RecordedRunsAgain,
        take_over_drops_steps,
    ),
    store("parking drops the record", Rule::RecordedRunsAgain, park_drops_record),
    store("parking drops the last step", Rule::ParkedForgets, park_drops_a_step),
    store(
        "a parked claim may record steps",
        Rule::SupersededRecords,
        parked_records,
    ),
    store(
        "an acknowledged step is not written",
        Rule::RecordedRunsAgain,
        record_forgets,
    ),
    store("a step replaces all others", Rule::ParkedForgets, record_replaces_all),
    store(
        "a claim is acquired over a parked record",
        Rule::RecordedRunsAgain,
        claim_over_parked,
    ),
    store(
        "a live claim is taken over",
        Rule::SupersededRecords,
        take_over_of_live_by_claim,
    ),
    Mutant {
        name: "a failed attempt releases its record",
        breaks: Rule::RecordedRunsAgain,
        releases: true,
        ..NONE
    },
    Mutant {
        name: "the start of a step is not recorded",
        breaks: Rule::RunsTwice,
        skips_start: true,
        ..NONE
    },
    Mutant {
        name: "a step that was begun runs again",
        breaks: Rule::RunsTwice,
        reruns_started: true,
        ..NONE
    },
];

fn record_unfenced(state: &State, now: Time, call: &Call) -> (State, Reply) {
    match (state, call) {
        (State::Claimed { claim: held, .. }, Call::RecordStep { name, step: bytes, .. }) => {
            let unfenced = Call::RecordStep {
                claim: held.clone(),
                name: name.clone(),
                step: bytes.clone(),
            };
            step(state, now, &unfenced)
        }
        _ => step(state, now, call),
    }
}

/// The same with the steps that `change` makes of those in the state afterwards.
fn with_steps(after: (State, Reply), change: impl FnOnce(&mut Steps)) -> (State, Reply) {
    let (mut state, reply) = after;
    if let State::Claimed { steps, .. } | State::Parked { steps, .. } = &mut state {
        change(steps);
    }
    (state, reply)
}

fn take_over_drops_steps(state: &State, now: Time, call: &Call) -> (State, Reply) {
    let after = step(state, now, call);
    match call {
        Call::TakeOver { .. } if after.1 == Reply::Acquired => with_steps(after, Steps::clear),
        _ => after,
    }
}

fn park_drops_record(state: &State, now: Time, call: &Call) -> (State, Reply) {
    match call {
        Call::Park(claim) => step(state, now, &Call::Release(claim.clone())),
        _ => step(state, now, call),
    }
}

fn park_drops_a_step(state: &State, now: Time, call: &Call) -> (State, Reply) {
    let after = step(state, now, call);
    match call {
        Call::Park(_) => with_steps(after, |steps| drop(steps.pop_last())),
        _ => after,
    }
}

fn parked_records(state: &State, now: Time, call: &Call) -> (State, Reply) {
    match (state, call) {
        // As if the lease were lapsed, so that the late owner is there again.
        (
            State::Parked { claim: held, steps, .. },
            Call::RecordStep {
                claim,
                name,
                step: bytes,
            },
        ) if held.token != claim.token => {
            let mut steps = steps.clone();
            steps.insert(name.clone(), bytes.clone());
            let (parked, _) = step(state, now, call);
            with_steps((parked, Reply::Fenced(Fenced::Applied)), |all| *all = steps)
        }
        _ => step(state, now, call),
    }
}

fn record_forgets(state: &State, now: Time, call: &Call) -> (State, Reply) {
    let (after, reply) = step(state, now, call);
    match call {
        Call::RecordStep { .. } => (state.clone(), reply),
        _ => (after, reply),
    }
}

fn record_replaces_all(state: &State, now: Time, call: &Call) -> (State, Reply) {
    let after = step(state, now, call);
    match call {
        Call::RecordStep { name, .. } => with_steps(after, |steps| steps.retain(|other, _| other == name)),
        _ => after,
    }
}

fn claim_over_parked(state: &State, now: Time, call: &Call) -> (State, Reply) {
    match (state, call) {
        (State::Parked { .. }, Call::TakeOver { claim, .. } | Call::Claim(claim)) => {
            step(&State::Absent, now, &Call::Claim(claim.clone()))
        }
        _ => step(state, now, call),
    }
}

/// A claim replaces a live one, and the superseded owner is believed.
fn take_over_of_live_by_claim(state: &State, now: Time, call: &Call) -> (State, Reply) {
    match (state, call) {
        (State::Claimed { .. }, Call::Claim(claim)) => {
            let (fresh, reply) = step(&State::Absent, now, &Call::Claim(claim.clone()));
            (fresh, reply)
        }
        (State::Claimed { claim: held, .. }, Call::RecordStep { name, step: bytes, .. }) => {
            let believed = Call::RecordStep {
                claim: held.clone(),
                name: name.clone(),
                step: bytes.clone(),
            };
            step(state, now, &believed)
        }
        _ => step(state, now, call),
    }
}
