//! The observed history of the claims of a key.
//!
//! Owns the oracle's memory: each claim and its run, the state that the store must be in, and counts of events. Does not own the
//! rules, except those about two runs of one key.

use tokio::time::Instant;

use super::desk::Operated;
use super::oracle::RecordSteps;
use super::{LEASE, REFUSING, TTL};
use crate::engine::RecordOutcome;
use crate::spec::State;
use crate::{Claim, Fingerprint, Token};

/// How a handler ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    With(RecordOutcome),
    Panicked,
    /// The process of the handler died.
    Killed,
}

/// A claim that took effect, and its run.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that do not exclude each other")]
pub(super) struct ClaimHistory {
    pub(super) number: u64,
    /// The number of the first claim of the record: its own, unless it has taken another one over.
    pub(super) record: u64,
    pub(super) claim: Claim,
    pub(super) process: usize,
    /// When the lease last began.
    pub(super) leased: Instant,
    /// Whether a fault has affected the claim's calls since.
    pub(super) disturbed: bool,
    pub(super) replaced: bool,
    /// Whether it has replaced a lapsed claim, whose attempt is not known to have ended.
    pub(super) has_replaced_lapsed: bool,
    pub(super) started: bool,
    pub(super) end: Option<End>,
    pub(super) ended: Instant,
    pub(super) settled: Option<(Instant, RecordOutcome)>,
    /// What an operator has made of its record, and when.
    pub(super) operated: Option<(Instant, Operated)>,
}

#[derive(Debug)]
pub(super) struct Slot {
    /// The state that the store must be in, by the specification.
    pub(super) state: State,
    pub(super) changed: Instant,
    pub(super) seen: Vec<ClaimHistory>,
    /// The steps of the records that the claims are of.
    pub(super) steps: Vec<RecordSteps>,
    /// The tokens of operators' outcomes, and the claims that they replaced.
    pub(super) operators: Vec<(Token, Token)>,
}

impl Slot {
    pub(super) fn find(&mut self, token: Token) -> Option<&mut ClaimHistory> {
        self.seen.iter_mut().find(|seen| seen.claim.token == token)
    }

    /// The claim that was replaced by an operator's outcome with this token.
    pub(super) fn of_operator(&self, token: Token) -> Option<Token> {
        let found = self.operators.iter().find(|(fresh, _)| *fresh == token);
        found.map(|(_, replaced)| *replaced)
    }

    /// Forgets claims that no rule is about any more.
    pub(super) fn forget(&mut self, now: Instant) {
        if self.seen.len() > 100 {
            self.seen
                .retain(|seen| seen.leased + LEASE + TTL * 4 > now || (seen.started && seen.end.is_none()));
            let seen = &self.seen;
            self.steps
                .retain(|steps| seen.iter().any(|seen| seen.record == steps.record));
        }
    }
}

/// How often each kind of event has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) starts: u64,
    pub(super) overlaps: u64,
    pub(super) replays: u64,
    pub(super) mismatches: u64,
    pub(super) take_overs: u64,
    pub(super) superseded: u64,
    pub(super) unknown: u64,
    pub(super) failed: u64,
    /// Bodies of steps that were called.
    pub(super) bodies: u64,
    /// Steps that ended without a call of their body.
    pub(super) resumed: u64,
    pub(super) reconciled: u64,
    pub(super) interrupted: u64,
    /// Steps that were told that their attempt is superseded.
    pub(super) outrun: u64,
    pub(super) parkings: u64,
    /// Attempts that went on after a parked one.
    pub(super) continued: u64,
    /// Settlements of operators.
    pub(super) operated: u64,
    /// Settlements that were refused: the record has changed, or its claim is live.
    pub(super) unsettled: u64,
}

impl Counts {
    fn all(&mut self) -> [&mut u64; 17] {
        [
            &mut self.starts,
            &mut self.overlaps,
            &mut self.replays,
            &mut self.mismatches,
            &mut self.take_overs,
            &mut self.superseded,
            &mut self.unknown,
            &mut self.failed,
            &mut self.bodies,
            &mut self.resumed,
            &mut self.reconciled,
            &mut self.interrupted,
            &mut self.outrun,
            &mut self.parkings,
            &mut self.continued,
            &mut self.operated,
            &mut self.unsettled,
        ]
    }

    pub(super) fn add(&mut self, mut other: Self) {
        for (sum, count) in self.all().into_iter().zip(other.all()) {
            *sum += *count;
        }
    }

    /// Whether every kind of event that the rules are about has happened, more often than by chance.
    pub(super) fn is_telling(mut self) -> bool {
        self.all().into_iter().all(|count| *count >= 100)
    }
}

/// The rule that a start breaks because of an `other` run of the key, if any.
pub(super) fn beside(
    other: &ClaimHistory,
    key: usize,
    mine: Fingerprint,
    now: Instant,
) -> Option<(&'static str, &'static str)> {
    match other.operated {
        Some((_, Operated::Reopened)) => return None,
        Some((at, Operated::Completed(ttl))) => {
            let broken = ("IDEM-2", "a handler started though an operator gave an outcome");
            return (now < at + ttl).then_some(broken);
        }
        None => {}
    }
    let lapses = other.leased + LEASE;
    match &other.settled {
        Some((at, outcome @ RecordOutcome::Complete { .. })) if now < *at + outcome.ttl(&other.claim) => {
            Some(("IDEM-2", "a handler started though one completed"))
        }
        Some(_) => None,
        None if now < lapses && other.end.is_none() => Some(("IDEM-1", "two handlers run under leases that hold")),
        None if now < lapses => Some((
            "IDEM-6",
            "a handler started before an outcome was recorded or a lease lapsed",
        )),
        None if now >= lapses + TTL || other.replaced => None,
        None if REFUSING[key] => Some(("IDEM-7", "a handler started after an unknown outcome")),
        None => {
            (other.claim.fingerprint != mine).then_some(("IDEM-3", "another request runs in place of a lapsed one"))
        }
    }
}
