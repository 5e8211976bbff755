//! The rules about the answers that requests get.
//!
//! Owns the checks of a handler's own answer and of what a duplicate gets. Does not own the checks of claims and runs: the
//! [`Oracle`] itself.

use std::time::Duration;

use tokio::time::Instant;

use super::Oracle;
use crate::engine::model::handler::Got;
use crate::engine::model::history::{ClaimHistory, End};
use crate::engine::model::{REFUSING, STEPPING};
use crate::engine::{Duplicate, RecordOutcome, RunAnswer};
use crate::spec::State;
use crate::{Completion, Fingerprint, Record, Token};

impl Oracle {
    /// A request has its answer; `token` where it ran, `was_hit` where a fault hit its process meanwhile.
    pub(in crate::engine::model) fn answered(
        &mut self,
        key: usize,
        mine: Fingerprint,
        token: Option<Token>,
        got: &Got,
        was_hit: bool,
    ) {
        let now = Instant::now();
        self.note(&format!("k{key} a request is answered: {got:?}"));
        self.slots[key].forget(now);
        match got {
            Got::Executed(executed) => self.executed(key, token, executed),
            // A waiter whose last look failed knows only that a claim was in flight before.
            Got::Duplicate(Duplicate::InFlight(_)) if was_hit => {}
            Got::Duplicate(duplicate) => self.duplicate(key, mine, duplicate, now),
            Got::Failed(_) => self.counts.failed += 1,
        }
    }

    fn executed(&mut self, key: usize, token: Option<Token>, executed: &RunAnswer<u64>) {
        let time = self.time();
        let slot = &mut self.slots[key];
        // The steps of an attempt that has ended without an outcome may be gone with its record.
        let is_there = match slot.state.at(time) {
            State::Claimed { claim, .. } | State::Parked { claim, .. } => Some(claim.token) == token,
            State::Absent | State::Completed { .. } => false,
        };
        let may_be_lost = STEPPING[key] && !is_there;
        let Some(seen) = token.and_then(|token| slot.find(token)) else {
            return self.violated("IDEM-1", "an answer without a claim");
        };
        let is_its_own = match (&seen.end, executed) {
            (Some(End::Panicked), RunAnswer::Panicked) => true,
            (Some(End::With(outcome)), RunAnswer::Answer { answer, recorded }) => {
                let is_kept = matches!(outcome, RecordOutcome::Complete { .. });
                let may_say_so = if is_kept {
                    seen.settled.is_some() || !recorded
                } else {
                    *recorded || may_be_lost || seen.operated.is_some()
                };
                *answer == seen.number && may_say_so
            }
            _ => false,
        };
        self.check(
            is_its_own,
            "IDEM-5",
            "the client's answer is not its handler's, or wrongly said to be recorded",
        );
    }

    fn duplicate(&mut self, key: usize, mine: Fingerprint, duplicate: &Duplicate, now: Instant) {
        let slot = &self.slots[key];
        // A claim may end in the same instant, before the answer is observed. A completion cannot.
        let just_changed = slot.changed == now;
        let record = slot.state.record(self.time());
        let (is_equal, completion, remaining) = match &record {
            Some(Record::Claimed { claim, remaining }) => (claim.fingerprint == mine, None, *remaining),
            Some(Record::Parked { claim }) => (claim.fingerprint == mine, None, Duration::ZERO),
            Some(Record::Completed {
                fingerprint,
                completion,
            }) => (*fingerprint == mine, Some(completion), Duration::ZERO),
            None => (false, None, Duration::ZERO),
        };
        let is_parked = matches!(record, Some(Record::Parked { .. }));
        let is_completed = |expected: &Completion| is_equal && completion == Some(expected);
        let is_claimed = is_equal && completion.is_none();
        let (holds, rule) = match duplicate {
            Duplicate::Replay(payload) => (
                is_completed(&Completion::Stored(payload.clone())),
                self.wrong_replay(key, mine, payload),
            ),
            Duplicate::NotStored => (is_completed(&Completion::NotStored), "IDEM-12"),
            Duplicate::Mismatch => (just_changed || record.is_some() && !is_equal, "IDEM-3"),
            Duplicate::InFlight(_) => (just_changed || is_claimed && !remaining.is_zero(), "IDEM-4"),
            Duplicate::OutcomeUnknown => {
                let has_lapsed = is_claimed && remaining.is_zero() && !is_parked;
                let is_refused = REFUSING[key] && (just_changed || has_lapsed);
                (is_refused || is_completed(&Completion::Unknown), "IDEM-7")
            }
        };
        match duplicate {
            Duplicate::Replay(_) => self.counts.replays += 1,
            Duplicate::Mismatch => self.counts.mismatches += 1,
            Duplicate::OutcomeUnknown => self.counts.unknown += 1,
            _ => {}
        }
        self.check(holds, rule, "a duplicate got what it must not get");
    }

    /// Which rule a replay of `payload` would break if it is not what has to be stored.
    fn wrong_replay(&self, key: usize, mine: Fingerprint, payload: &[u8]) -> &'static str {
        let of = |seen: &&ClaimHistory| seen.number.to_be_bytes() == payload;
        match self.slots[key].seen.iter().find(of) {
            Some(seen) if seen.claim.fingerprint != mine => "IDEM-3",
            Some(seen) if seen.settled.is_some() => "IDEM-14",
            Some(_) => "IDEM-8",
            None => "IDEM-2",
        }
    }
}
