//! Wrong stores and wrong engines. Each has one thing changed, and breaks a rule.

use super::operator_mutants::{
    forget_leaves_steps, rerun_forgets, rerun_keeps_owner, settle_any_steps, settle_by_token, settle_keeps_token,
    settle_live, settle_loses_outcome, settle_unfenced,
};
use super::world::{A, DONE, INTERRUPTED, OPERATED, RECONCILED, Rule, Setting};
use crate::Fenced;
use crate::spec::{Call, Reply, State, Steps, Time, step};

/// What the engine does otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deviation {
    /// It releases where it should park.
    Releases,
    /// It does not record the start of step `b`.
    SkipsStart,
    /// It calls the body of a step again that was begun.
    RerunsStarted,
    /// It sends a start again that may be on its way.
    SendsStartAgain,
    /// It calls the body although its start was not found.
    TrustsStart,
    /// It takes the start by another attempt for its own.
    TakesAnyStart,
}

/// One thing that is changed.
pub struct Mutant {
    /// What is changed.
    pub name: &'static str,
    /// The rule that then does not hold.
    pub breaks: Rule,
    /// The store's function.
    pub(super) step: StepFn,
    /// What the engine does otherwise.
    pub(super) deviation: Option<Deviation>,
    /// What the handler does.
    pub(super) setting: Setting,
}

type StepFn = fn(&State, Time, &Call) -> (State, Reply);

impl Mutant {
    pub(super) fn is(&self, deviation: Deviation) -> bool {
        self.deviation == Some(deviation)
    }

    /// Nothing is changed.
    pub(super) const fn none(setting: Setting) -> Self {
        Self {
            name: "nothing",
            breaks: Rule::RunsTwice,
            step,
            deviation: None,
            setting,
        }
    }

    /// The part that is changed: `step` or `protocol`.
    #[must_use]
    pub fn changes(&self) -> &'static str {
        if self.deviation.is_some() { "protocol" } else { "step" }
    }
}

impl std::fmt::Debug for Mutant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mutant")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

const fn store(name: &'static str, breaks: Rule, step: StepFn) -> Mutant {
    Mutant {
        name,
        breaks,
        step,
        ..Mutant::none(INTERRUPTED)
    }
}

const fn engine(name: &'static str, breaks: Rule, deviation: Deviation, setting: Setting) -> Mutant {
    Mutant {
        name,
        breaks,
        deviation: Some(deviation),
        ..Mutant::none(setting)
    }
}

const fn operated(name: &'static str, breaks: Rule, step: StepFn) -> Mutant {
    Mutant {
        name,
        breaks,
        step,
        ..Mutant::none(OPERATED)
    }
}

/// Each of them.
#[rustfmt::skip]
pub const MUTANTS: &[Mutant] = &[
    store("a step is recorded by any attempt", Rule::SupersededRecords, record_unfenced),
    store("a takeover drops the steps", Rule::RecordedRunsAgain, take_over_drops_steps),
    store("parking drops the record", Rule::ParkedForgets, park_drops_record),
    store("parking drops the last step", Rule::ParkedForgets, park_drops_a_step),
    store("parking renews the lease", Rule::ParkedHolds, park_renews),
    store("a superseded attempt parks", Rule::SupersededRecords, park_unfenced),
    store("a parked claim may record steps", Rule::SupersededRecords, parked_records),
    store("an acknowledged step is not written", Rule::SuccessorMisses, record_forgets),
    store("a step replaces all others", Rule::SuccessorMisses, record_replaces_all),
    store("a claim is acquired over a parked record", Rule::RecordedRunsAgain, claim_over_parked),
    store("a live claim is taken over", Rule::SupersededRecords, take_over_of_live_by_claim),
    store("a superseded attempt reads the steps", Rule::SupersededRecords, read_unfenced),
    store("a completion leaves its steps to the next record", Rule::ExpiredSeen, completion_leaves_steps),
    store("expired steps are there for the next record", Rule::ExpiredSeen, expired_steps_stay),
    operated("a settlement ends whatever record is there", Rule::SettledUnseen, settle_unfenced),
    operated("a settlement is fenced by the token alone", Rule::SettledUnseen, settle_by_token),
    operated("a settlement does not look at the steps", Rule::SettledUnseen, settle_any_steps),
    operated("a live claim is settled without force", Rule::LiveSettled, settle_live),
    operated("a rerun removes the steps", Rule::ParkedForgets, rerun_forgets),
    operated("a rerun leaves the claim to its owner", Rule::SupersededRecords, rerun_keeps_owner),
    operated("an outcome of an operator has the owner's token", Rule::SettledUnseen, settle_keeps_token),
    operated("an outcome of an operator is lost", Rule::SettledRuns, settle_loses_outcome),
    operated("a forgotten record leaves its steps", Rule::ExpiredSeen, forget_leaves_steps),
    engine("a failed attempt releases its record", Rule::ParkedForgets, Deviation::Releases, INTERRUPTED),
    engine("the start of a step is not recorded", Rule::RunsTwice, Deviation::SkipsStart, INTERRUPTED),
    engine("a step that was begun runs again", Rule::RunsTwice, Deviation::RerunsStarted, INTERRUPTED),
    engine("a step that was begun is not reconciled", Rule::RunsTwice, Deviation::RerunsStarted, RECONCILED),
    engine("a start is sent again that may be on its way", Rule::ParkedForgets, Deviation::SendsStartAgain, INTERRUPTED),
    engine("a body is called whose start was not found", Rule::ParkedForgets, Deviation::TrustsStart, INTERRUPTED),
    engine("the start by another attempt is taken for its own", Rule::ParkedForgets, Deviation::TakesAnyStart, RECONCILED),
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

fn park_renews(state: &State, now: Time, call: &Call) -> (State, Reply) {
    match call {
        Call::Park(claim) => step(state, now, &Call::Renew(claim.clone())),
        _ => step(state, now, call),
    }
}

/// The same call, as if the owner in place had made it.
fn by_owner(state: &State, call: &Call) -> Call {
    match (state, call) {
        (State::Claimed { claim: held, .. }, Call::Park(_)) => Call::Park(held.clone()),
        (State::Claimed { claim: held, .. }, Call::ReadSteps(_)) => Call::ReadSteps(held.clone()),
        _ => call.clone(),
    }
}

fn park_unfenced(state: &State, now: Time, call: &Call) -> (State, Reply) {
    match call {
        Call::Park(_) => step(state, now, &by_owner(state, call)),
        _ => step(state, now, call),
    }
}

fn read_unfenced(state: &State, now: Time, call: &Call) -> (State, Reply) {
    match call {
        Call::ReadSteps(_) => step(state, now, &by_owner(state, call)),
        _ => step(state, now, call),
    }
}

fn expired_steps_stay(state: &State, now: Time, call: &Call) -> (State, Reply) {
    let after = step(state, now, call);
    match (state, call) {
        (
            State::Claimed { steps, expires, .. } | State::Parked { steps, expires, .. },
            Call::Claim(_) | Call::TakeOver { .. },
        ) if *expires <= now => with_steps(after, |all| *all = steps.clone()),
        _ => after,
    }
}

fn completion_leaves_steps(state: &State, now: Time, call: &Call) -> (State, Reply) {
    let after = step(state, now, call);
    match (state, call) {
        (State::Completed { claim, expires, .. }, Call::Claim(_)) if *expires <= now && claim.has_steps => {
            with_steps(after, |all| drop(all.insert(A.to_owned(), DONE)))
        }
        _ => after,
    }
}
