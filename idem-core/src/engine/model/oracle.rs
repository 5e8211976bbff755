//! The oracle: it checks every observation against the numbered rules.
//!
//! Owns a history of every claim, start, end and answer, built from the calls that took effect at the store and from their times.
//! It does not read the state of the engine or of the store. Does not own what the store must answer, and the state that it must
//! be in: [`step`]. Does not own the shape of the history: [`history`](super::history).

mod answers;
mod steps;

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _};

use tokio::time::Instant;

pub(super) use self::steps::RecordSteps;
use super::door::{claim_of, name_of, outcome_of};
use super::history::{ClaimHistory, Counts, End, Slot, beside};
use super::{KEYS, LEASE, REFUSING};
use crate::engine::RecordOutcome;
use crate::inspect::Settled;
use crate::spec::{Call, Reply, State, Time, step};
use crate::{Completion, Fenced, Token};

const REMEMBERED: usize = 30;

#[derive(Debug)]
pub(super) struct Oracle {
    pub(super) slots: [Slot; KEYS],
    dead: Vec<bool>,
    numbers: u64,
    /// How many effects the bodies of steps have had.
    values: u64,
    begun: Instant,
    events: VecDeque<String>,
    pub(super) trace: DefaultHasher,
    pub(super) counts: Counts,
    pub(super) violation: Option<String>,
}

impl Oracle {
    pub(super) fn new() -> Self {
        let begun = Instant::now();
        let slot = |_| Slot {
            state: State::Absent,
            changed: begun,
            seen: Vec::new(),
            steps: Vec::new(),
            operators: Vec::new(),
        };
        Self {
            slots: std::array::from_fn(slot),
            dead: Vec::new(),
            numbers: 0,
            values: 0,
            begun,
            events: VecDeque::new(),
            trace: DefaultHasher::new(),
            counts: Counts::default(),
            violation: None,
        }
    }

    pub(super) fn note(&mut self, event: &str) {
        let event = format!("{:>9} ms  {event}", self.begun.elapsed().as_millis());
        event.hash(&mut self.trace);
        if self.events.len() == REMEMBERED {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Keeps the first violation, with the events that led to it.
    pub(super) fn violated(&mut self, rule: &str, what: &str) {
        if self.violation.is_none() {
            let events = self.events.make_contiguous().join("\n");
            self.violation = Some(format!("{rule}: {what}\nthe last events:\n{events}"));
        }
    }

    pub(super) fn check(&mut self, holds: bool, rule: &str, what: &str) {
        if !holds {
            self.violated(rule, what);
        }
    }

    pub(super) fn died(&mut self, process: usize) {
        self.dead.resize(self.dead.len().max(process + 1), false);
        self.dead[process] = true;
        let seen = self.slots.iter_mut().flat_map(|slot| &mut slot.seen);
        for seen in seen.filter(|seen| seen.process == process && seen.started && seen.end.is_none()) {
            seen.end = Some(End::Killed);
        }
    }

    pub(super) fn is_dead(&self, process: usize) -> bool {
        self.dead.get(process).copied().unwrap_or_default()
    }

    /// A call about this claim is about to go wrong.
    pub(super) fn disturbed(&mut self, key: usize, token: Token) {
        if let Some(seen) = self.slots[key].find(token) {
            seen.disturbed = true;
        }
    }

    /// Nobody's timers were on time.
    pub(super) fn all_disturbed(&mut self) {
        for seen in self.slots.iter_mut().flat_map(|slot| &mut slot.seen) {
            seen.disturbed = true;
        }
    }

    fn number(&mut self, key: usize, token: Token) -> String {
        let seen = self.slots[key].find(token);
        seen.map_or_else(|| "a claim never made".to_owned(), |seen| format!("#{}", seen.number))
    }

    /// The current time, as the specification counts it. The paused clock advances by whole milliseconds.
    pub(super) fn time(&self) -> Time {
        Time(0).after(self.begun.elapsed())
    }

    /// `call` has reached the store, which answered `reply`. The specification says what it must answer.
    pub(super) fn observed(&mut self, process: usize, key: usize, call: &Call, reply: &Reply) {
        let (now, time) = (Instant::now(), self.time());
        self.slots[key].forget(now);
        self.may_settle(key, call);
        let before = self.slots[key].state.at(time).clone();
        let (after, expected) = step(&before, time, call);
        self.slots[key].state = after;
        let took_effect = matches!(reply, Reply::Acquired | Reply::Fenced(Fenced::Applied));
        if took_effect {
            self.take_effect(process, key, call, &before);
        } else if matches!(call, Call::Complete { .. }) {
            self.counts.superseded += 1;
        }
        match (call, reply) {
            // Repeated, an outcome is applied and changes nothing.
            (
                Call::Settle {
                    version, settlement, ..
                },
                Reply::Settled(Settled::Applied),
            ) if before.version() == Some(*version) => self.operated(key, version.token, settlement),
            (Call::Settle { .. }, _) => self.counts.unsettled += 1,
            _ => {}
        }
        self.observed_steps(key, call, &before, reply);
        let number = call.claim().map(|claim| self.number(key, claim.token));
        let number = number.unwrap_or_else(|| "the record".to_owned());
        let effect = if took_effect { "took effect" } else { "changed nothing" };
        self.note(&format!("p{process} k{key} {} of {number} {effect}", name_of(call)));
        let rule = match call {
            Call::Claim(_) | Call::TakeOver { .. } => "IDEM-1",
            _ => "IDEM-8",
        };
        if super::CHECKS_THE_STORE && *reply != expected {
            self.violated(rule, &format!("the store answered {reply:?} in place of {expected:?}"));
        }
    }

    /// A started handler's claim ends by its own outcome (IDEM-6).
    fn may_settle(&mut self, key: usize, call: &Call) {
        let Some(ends_by) = outcome_of(call) else {
            return;
        };
        let Some(seen) = self.slots[key].find(claim_of(call).token) else {
            return;
        };
        let is_its_own = match &seen.end {
            // Given up before it started. Of a second attempt that would hide that there was a first one (IDEM-7), unless the first
            // one is known to have ended: then the record is parked again.
            None => {
                let is_parked_again = !seen.has_replaced_lapsed && matches!(call, Call::Park(_));
                !seen.started && ends_by == RecordOutcome::Release && (seen.claim.attempt == 1 || is_parked_again)
            }
            Some(End::With(outcome)) => *outcome == ends_by,
            Some(End::Killed) => false,
            Some(End::Panicked) if REFUSING[key] => ends_by == RecordOutcome::complete(Completion::Unknown),
            Some(End::Panicked) => ends_by == RecordOutcome::Release,
        };
        self.check(
            is_its_own,
            "IDEM-6",
            "a claim was ended by what is not its handler's outcome",
        );
    }

    /// Notes the effect of a call on a key whose state was `before`.
    fn take_effect(&mut self, process: usize, key: usize, call: &Call, before: &State) {
        let (now, claim) = (Instant::now(), claim_of(call));
        if matches!(call, Call::Claim(_) | Call::TakeOver { .. }) {
            return self.claimed(process, key, call, before);
        }
        // A store that lets a superseded owner through must not be believed here.
        if !before.is_claim_of(claim.token) {
            return;
        }
        let slot = &mut self.slots[key];
        slot.changed = now;
        if let Some(seen) = slot.find(claim.token) {
            match outcome_of(call) {
                None => (seen.leased, seen.disturbed) = (now, false),
                Some(outcome) => seen.settled = Some((now, outcome)),
            }
        }
    }

    fn claimed(&mut self, process: usize, key: usize, call: &Call, before: &State) {
        let (now, claim) = (Instant::now(), claim_of(call));
        let attempt = match call {
            Call::TakeOver { lapsed, .. } => lapsed.attempt + 1,
            _ => 1,
        };
        self.check(claim.attempt == attempt, "IDEM-7", "the attempt is not one more");
        if before.is_claim_of(claim.token) {
            return;
        }
        let mut record = self.numbers + 1;
        if let State::Claimed { claim: held, .. } | State::Parked { claim: held, .. } = before {
            let is_parked = matches!(before, State::Parked { .. });
            *if is_parked {
                &mut self.counts.continued
            } else {
                &mut self.counts.take_overs
            } += 1;
            let slot = &mut self.slots[key];
            let of_claim = slot.of_operator(held.token).unwrap_or(held.token);
            record = slot.find(of_claim).map_or(record, |held| held.record);
            self.check(held.attempt + 1 == claim.attempt, "IDEM-7", "an attempt was skipped");
            self.check(
                held.began_at == claim.began_at,
                "IDEM-7",
                "the first attempt began at another time",
            );
            self.check(
                is_parked || !REFUSING[key],
                "IDEM-7",
                "a claim was taken over though a crash refuses",
            );
            let is_equal = held.fingerprint == claim.fingerprint;
            self.check(is_equal, "IDEM-3", "another request has taken a claim over");
            if !is_parked {
                self.replaced(key, held.token);
            }
        }
        self.slots[key].changed = now;
        self.numbers += 1;
        self.slots[key].seen.push(ClaimHistory {
            number: self.numbers,
            record,
            claim: claim.clone(),
            process,
            leased: now,
            disturbed: false,
            replaced: false,
            has_replaced_lapsed: matches!(before, State::Claimed { .. }),
            started: false,
            end: None,
            ended: now,
            settled: None,
            operated: None,
        });
    }

    fn replaced(&mut self, key: usize, token: Token) {
        let Some(seen) = self.slots[key].find(token) else {
            return;
        };
        seen.replaced = true;
        let is_given_up = match &seen.end {
            // An outcome is given up that could not be recorded for as long as it would have been kept.
            Some(End::With(outcome @ RecordOutcome::Complete { .. })) => {
                seen.ended.elapsed() >= outcome.ttl(&seen.claim)
            }
            // Once there is nothing to lose, nothing is renewed.
            Some(End::With(RecordOutcome::Release) | End::Panicked | End::Killed) => true,
            None => false,
        };
        let may_lapse = !seen.started || seen.disturbed || is_given_up;
        let process = seen.process;
        let may_lapse = may_lapse || self.is_dead(process);
        let what = "a lease lapsed though nothing was in the way of its renewal";
        self.check(may_lapse, "IDEM-7", what);
    }

    /// The handler of a claim has started; the number of its run.
    pub(super) fn started(&mut self, key: usize, token: Token) -> u64 {
        let now = Instant::now();
        let time = self.time();
        let slot = &mut self.slots[key];
        slot.forget(now);
        let holds =
            matches!(&slot.state, State::Claimed { claim, lapses, .. } if claim.token == token && *lapses > time);
        let Some(at) = slot.seen.iter().position(|seen| seen.claim.token == token) else {
            self.violated("IDEM-1", "a handler started without a claim");
            return 0;
        };
        let seen = &mut slot.seen[at];
        let (number, fingerprint, again) = (seen.number, seen.claim.fingerprint, seen.started);
        // An operator may end a claim by force before its handler starts.
        let holds = holds || seen.operated.is_some();
        seen.started = true;
        let verdicts = slot.seen.iter().filter(|other| other.number != number && other.started);
        let verdicts: Vec<_> = verdicts.map(|other| beside(other, key, fingerprint, now)).collect();
        let overlaps = |other: &&ClaimHistory| other.number != number && other.started && other.end.is_none();
        let overlapping = slot.seen.iter().filter(overlaps).count();
        self.counts.starts += 1;
        self.counts.overlaps += u64::from(overlapping > 0);
        self.note(&format!("k{key} the handler of #{number} starts"));
        self.check(holds, "IDEM-1", "a handler started under a claim that does not hold");
        self.check(!again, "IDEM-1", "a handler started twice under one claim");
        for (rule, what) in verdicts.into_iter().flatten() {
            self.violated(rule, what);
        }
        number
    }

    pub(super) fn ended(&mut self, key: usize, token: Token, end: End) {
        let number = self.number(key, token);
        self.note(&format!("k{key} the handler of {number} ends: {end:?}"));
        if let Some(seen) = self.slots[key].find(token) {
            (seen.end, seen.ended) = (Some(end), Instant::now());
        }
    }

    /// The runs whose outcome is kept and that have time left to record it, but have not.
    pub(super) fn unrecorded(&self, since: Instant) -> Vec<u64> {
        let soon = self.time().after(LEASE);
        let is_open = |slot: &&Slot, seen: &ClaimHistory| {
            matches!(seen.end, Some(End::With(RecordOutcome::Complete { .. })))
                && seen.ended >= since
                && !self.is_dead(seen.process)
                && matches!(&slot.state, State::Claimed { claim, expires, .. } if claim.token == seen.claim.token && *expires > soon)
        };
        let of = |slot: &Slot| {
            let seen = slot.seen.iter().filter(|seen| is_open(&slot, seen));
            seen.map(|seen| seen.number).collect::<Vec<_>>()
        };
        self.slots.iter().flat_map(of).collect()
    }

    /// Whether the outcome of this run was recorded, or its claim was taken over.
    pub(super) fn is_over(&self, number: u64) -> bool {
        let mut seen = self.slots.iter().flat_map(|slot| &slot.seen);
        seen.find(|seen| seen.number == number)
            .is_none_or(|seen| seen.settled.is_some() || seen.replaced || seen.operated.is_some())
    }
}
