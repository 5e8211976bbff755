//! The rules about durable steps.
//!
//! Owns what is true of the steps of each record, whether or not the store says so: which bodies were called, which effects they
//! had, and what their handlers were told. Does not own what a handler does: [`stepping`](crate::engine::model::stepping).
//!
//! | rule | what holds |
//! |---|---|
//! | recorded | a step whose end was acknowledged to an attempt is neither called nor reconciled by a later one, which gets its result |
//! | superseded | an attempt that is not in place records nothing |
//! | successor | an attempt that reads the steps finds all that were acknowledged |
//! | parked | a parked record has all steps that were acknowledged, and a record that has some is never released |
//! | once | a body that runs at most once is called by one attempt, or by one that was told that it did not happen |

use super::Oracle;
use crate::engine::model::stepping::{ASKED, NAMES, ONCE, STEPS};
use crate::spec::{Call, Reply, State};
use crate::steps::{StepErrorKind, is_start};
use crate::{Fenced, Token};

/// What is true of the steps of one record.
#[derive(Debug)]
pub(in crate::engine::model) struct RecordSteps {
    /// The number of the record's first claim.
    pub(in crate::engine::model) record: u64,
    steps: [StepHistory; STEPS],
}

/// What is true of one step. Claims are given by their numbers.
#[derive(Debug, Default)]
struct StepHistory {
    /// The claims of the attempts that called the body.
    called: Vec<u64>,
    /// The claims of the attempts that were told that the body had no effect.
    denied: Vec<u64>,
    /// The claims whose calls to record the start took effect.
    started: Vec<u64>,
    /// The claims whose calls to record the end took effect.
    ended: Vec<u64>,
    /// The values of all effects.
    effects: Vec<u64>,
    /// The claim of the first attempt to which the end was acknowledged, and the result.
    acknowledged: Option<(u64, u64)>,
}

impl RecordSteps {
    fn new(record: u64) -> Self {
        Self {
            record,
            steps: Default::default(),
        }
    }
}

impl Oracle {
    /// The number of a claim, and what is true of a step of its record.
    fn step_of(&mut self, key: usize, token: Token, step: usize) -> Option<(u64, &mut StepHistory)> {
        let slot = &mut self.slots[key];
        let seen = slot.find(token)?;
        let (number, record) = (seen.number, seen.record);
        if !slot.steps.iter().any(|steps| steps.record == record) {
            slot.steps.push(RecordSteps::new(record));
        }
        let steps = slot.steps.iter_mut().find(|steps| steps.record == record)?;
        Some((number, &mut steps.steps[step]))
    }

    /// The names of the steps of the claim's record that were acknowledged.
    fn acknowledged(&mut self, key: usize, token: Token) -> Vec<&'static str> {
        let is_acknowledged = |step: &usize| {
            let found = self.step_of(key, token, *step);
            found.is_some_and(|(_, step)| step.acknowledged.is_some())
        };
        (0..STEPS).filter(is_acknowledged).map(|step| NAMES[step]).collect()
    }

    /// A call about steps has taken the record from the state `before` to its present one.
    pub(super) fn observed_steps(&mut self, key: usize, call: &Call, before: &State, reply: &Reply) {
        let is_applied = *reply == Reply::Fenced(Fenced::Applied);
        match call {
            Call::RecordStep {
                claim,
                name,
                step: bytes,
            } if is_applied => {
                let is_in_place = before.is_claim_of(claim.token);
                self.check(
                    is_in_place,
                    "superseded",
                    "an attempt that is not in place has recorded a step",
                );
                let step = NAMES.iter().position(|known| known == name);
                if let Some((number, step)) = step.and_then(|step| self.step_of(key, claim.token, step)) {
                    let written = if is_start(bytes) {
                        &mut step.started
                    } else {
                        &mut step.ended
                    };
                    written.push(number);
                }
            }
            Call::ReadSteps(claim) => {
                if let Reply::Steps(Some(read)) = reply {
                    let acknowledged = self.acknowledged(key, claim.token);
                    let has_all = acknowledged.into_iter().all(|name| read.contains_key(name));
                    self.check(
                        has_all,
                        "successor",
                        "an attempt does not see a step that was acknowledged",
                    );
                }
            }
            Call::Park(claim) if is_applied => {
                self.counts.parkings += 1;
                let acknowledged = self.acknowledged(key, claim.token);
                let has_all = match &self.slots[key].state {
                    State::Parked { steps, .. } => acknowledged.into_iter().all(|name| steps.contains_key(name)),
                    _ => acknowledged.is_empty(),
                };
                self.check(has_all, "parked", "a parked record has forgotten a step");
            }
            Call::Release(claim) if is_applied && before.is_claim_of(claim.token) => {
                let has_none = matches!(before, State::Claimed { steps, .. } if steps.is_empty());
                self.check(has_none, "parked", "a record that has steps was released");
            }
            _ => {}
        }
    }

    /// An operator is about to say that a step has happened: the value of its effect.
    pub(in crate::engine::model) fn found_done(&mut self, key: usize, token: Token, name: &str) -> u64 {
        let step = NAMES.iter().position(|known| *known == name).unwrap_or_default();
        let token = self.slots[key].of_operator(token).unwrap_or(token);
        let effect = self.step_of(key, token, step);
        let effect = effect.and_then(|(_, history)| history.effects.first().copied());
        effect.unwrap_or_else(|| self.body_took_effect(key, token, step))
    }

    /// An operator has recorded that a step of the claim's record has happened.
    pub(in crate::engine::model) fn done_by_operator(&mut self, key: usize, token: Token, name: &str) {
        let step = NAMES.iter().position(|known| *known == name);
        if let Some((number, history)) = step.and_then(|step| self.step_of(key, token, step)) {
            history.ended.push(number);
        }
    }

    /// A handler calls the body of a step.
    pub(in crate::engine::model) fn body_called(&mut self, key: usize, token: Token, step: usize) {
        self.counts.bodies += 1;
        let Some((number, history)) = self.step_of(key, token, step) else {
            return self.violated("IDEM-1", "a body was called without a claim");
        };
        // An attempt that has stalled may still call a body that a later one has ended.
        let is_recorded = history.acknowledged.is_some_and(|(by, _)| by <= number);
        let is_told_so = history.denied.contains(&number);
        let was_called = match step {
            ONCE => !history.called.is_empty(),
            ASKED => history.called.iter().any(|by| *by <= number) && !is_told_so,
            _ => history.called.contains(&number),
        };
        let is_started = matches!(step, ONCE | ASKED);
        let is_unannounced = is_started && !is_told_so && !history.started.contains(&number);
        history.called.push(number);
        self.note(&format!("k{key} #{number} calls the body of {}", NAMES[step]));
        self.check(!is_recorded, "recorded", "the body of a recorded step was called again");
        self.check(!was_called, "once", "a body was called again");
        self.check(
            !is_unannounced,
            "once",
            "a body was called before its start was recorded",
        );
    }

    /// The body of a step has an effect; its value.
    pub(in crate::engine::model) fn body_took_effect(&mut self, key: usize, token: Token, step: usize) -> u64 {
        self.values += 1;
        let value = self.values;
        if let Some((_, history)) = self.step_of(key, token, step) {
            history.effects.push(value);
        }
        value
    }

    /// A handler asks what became of a body that was begun: the value of its effect.
    pub(in crate::engine::model) fn reconciled(&mut self, key: usize, token: Token, step: usize) -> Option<u64> {
        self.counts.reconciled += 1;
        let (number, history) = self.step_of(key, token, step)?;
        let is_recorded = history.acknowledged.is_some_and(|(by, _)| by < number);
        let found = history.effects.first().copied();
        if found.is_none() {
            history.denied.push(number);
        }
        self.note(&format!("k{key} #{number} reconciles {}: {found:?}", NAMES[step]));
        self.check(!is_recorded, "recorded", "a recorded step was reconciled");
        found
    }

    /// A step has ended for its handler, which `has_called` its body or not; `was_hit` where a fault hit its process meanwhile.
    pub(in crate::engine::model) fn step_ended(
        &mut self,
        key: usize,
        token: Token,
        step: usize,
        result: Result<u64, StepErrorKind>,
        (has_called, was_hit): (bool, bool),
    ) {
        let is_in_place = self.slots[key].state.at(self.time()).is_claim_of(token);
        let Some((number, history)) = self.step_of(key, token, step) else {
            return self.violated("IDEM-1", "a step ended without a claim");
        };
        let recorded = history.acknowledged.filter(|(by, _)| *by < number);
        let is_known = result.is_ok_and(|value| history.effects.contains(&value));
        let is_begun = history.started.iter().any(|by| *by < number);
        // By the attempt itself, if it has called the body, or by an earlier one.
        let is_recorded = history
            .ended
            .iter()
            .any(|by| *by == number || *by < number && !has_called);
        if let Ok(value) = result {
            history.acknowledged.get_or_insert((number, value));
        }
        self.note(&format!("k{key} #{number} ends {}: {result:?}", NAMES[step]));
        match result {
            Ok(value) => {
                self.counts.resumed += u64::from(!has_called);
                let is_the_same = recorded.is_none_or(|(_, before)| before == value);
                self.check(is_the_same, "recorded", "a recorded step has another result");
                self.check(is_known, "recorded", "a result that no body has returned");
                self.check(is_recorded, "superseded", "a step was said to be recorded that is not");
            }
            Err(StepErrorKind::Superseded) => {
                self.counts.outrun += 1;
                self.check(
                    !is_in_place,
                    "superseded",
                    "the attempt in place was said to be superseded",
                );
            }
            Err(StepErrorKind::Interrupted) => {
                self.counts.interrupted += 1;
                let may_be = step == ONCE && is_begun && recorded.is_none();
                self.check(
                    may_be,
                    "recorded",
                    "a step was interrupted that was recorded, or not begun",
                );
            }
            Err(StepErrorKind::Unavailable | StepErrorKind::NotRecorded) => {
                self.check(was_hit, "IDEM-13", "a step failed though nothing was in its way");
            }
            Err(_) => self.violated("successor", "the steps of earlier attempts cannot be read"),
        }
    }
}
