//! What a request makes of a record: the judgement of [`decide`](crate::decide).
//!
//! Owns which decision is right for each record. Does not own whether the record is right: [`truth`](super::truth).

use super::setting::{Setting, ticks};
use super::translate::claim_of;
use super::truth::{Truth, Violation, broken};
use super::witness::{Witness, Witnesses};
use super::world::{ClaimOf, Kept, Seen};
use crate::Decision;

impl Setting {
    /// Judges what `request` was told because of `record`.
    pub(super) fn judge_decision(
        &self,
        request: u8,
        record: Seen,
        truth: Truth,
        decision: &Decision,
        seen: &mut Witnesses,
    ) -> Result<(), Violation> {
        let of = match record {
            Seen::Claimed { claim, .. } => claim.request,
            Seen::Completed { like, .. } => like,
        };
        match (self.differ(of, request), decision) {
            (true, Decision::Mismatch) => {
                seen.add(match record {
                    Seen::Claimed { has_lapsed: false, .. } => Witness::MismatchInFlight,
                    Seen::Claimed { has_lapsed: true, .. } => Witness::MismatchLapsed,
                    Seen::Completed { .. } => Witness::MismatchCompleted,
                });
                Ok(())
            }
            (true, _) => broken("IDEM-3", "another request is not told that the key is taken"),
            (false, Decision::Mismatch) => broken("IDEM-3", "an equal request is refused as another one"),
            (false, _) => match record {
                Seen::Completed { kept, .. } => judge_completed(kept, decision, seen),
                Seen::Claimed { has_lapsed: false, .. } => match decision {
                    Decision::InFlight(_) => seen.found(Witness::InFlight),
                    _ => broken("IDEM-4", "a duplicate is not told that the first one is in flight"),
                },
                Seen::Claimed { claim, .. } => self.judge_lapsed(claim, truth, decision, seen),
            },
        }
    }

    fn judge_lapsed(
        &self,
        claim: ClaimOf,
        truth: Truth,
        decision: &Decision,
        seen: &mut Witnesses,
    ) -> Result<(), Violation> {
        // A claim that is taken over keeps its age, whatever it says. A record that was seen long ago is older than the one in
        // place.
        let age = match truth {
            Truth::Claimed { claim: held, .. } if (held.request, held.attempt) == (claim.request, claim.attempt) => {
                held.age.max(claim.age)
            }
            _ => claim.age,
        };
        let is_in_time = self.policy.rerun_within().is_none_or(|within| ticks(age) <= within);
        let allows = self.allows(claim.attempt);
        match decision {
            Decision::TakeOver(lapsed) if claim_of(lapsed) == claim => {
                if !allows || !is_in_time {
                    return broken("IDEM-7", "a request is to run again against its policy");
                }
                seen.found(if claim.attempt == 1 {
                    Witness::SecondAttempt
                } else {
                    Witness::ThirdAttempt
                })
            }
            Decision::OutcomeUnknown if !allows || !is_in_time => seen.found(if allows {
                Witness::TooLate
            } else if self.policy.max_attempts().is_some() {
                Witness::TooManyAttempts
            } else {
                Witness::Refused
            }),
            _ => broken("IDEM-7", "a request after a crash gets what its policy does not say"),
        }
    }
}

fn judge_completed(kept: Kept, decision: &Decision, seen: &mut Witnesses) -> Result<(), Violation> {
    match (kept, decision) {
        (Kept::Answer(of), Decision::Replay(payload)) if payload[..] == [of] => seen.found(Witness::Replay),
        (Kept::Nothing, Decision::NotStored) => seen.found(Witness::NotStored),
        (Kept::Unknown, Decision::OutcomeUnknown) => seen.found(Witness::Unknown),
        (Kept::Answer(_), _) => broken("IDEM-2", "a duplicate does not get the stored answer"),
        (Kept::Nothing, _) => broken("IDEM-12", "a duplicate is not told that the answer was not stored"),
        (Kept::Unknown, _) => broken("IDEM-11", "a duplicate is not told that the outcome is unknown"),
    }
}
