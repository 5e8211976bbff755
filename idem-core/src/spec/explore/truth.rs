//! What has really happened, and the rules by which it is judged.
//!
//! Owns the record as the replies and the time that has passed imply it, and what each reply may be. The store's state is not
//! read: a function that replies rightly keeps the promise, whatever it stores. Does not own what a request makes of a reply:
//! [`answers`](super::answers).

use super::setting::{LEASE, Setting, TTL};
use super::witness::{Witness, Witnesses};
use super::world::{Answer, ClaimOf, Kept, Message, Reason, Seen};
use crate::AfterCrash;

/// The record as it must be by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Truth {
    Absent,
    /// A claim: `claim.age` is the age of the first attempt, whatever the store and the claims say.
    Claimed {
        claim: ClaimOf,
        lease: u8,
        expires: u8,
    },
    Completed {
        owner: u8,
        kept: Kept,
        expires: u8,
    },
}

/// A rule of the promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its number, as in `docs/semantics.md`.
    pub rule: &'static str,
    /// How it was broken.
    pub what: &'static str,
}

/// The truth after a reply that keeps the promise, and the rule that is broken otherwise.
type Judged = Result<Truth, Violation>;

pub(super) fn broken<T>(rule: &'static str, what: &'static str) -> Result<T, Violation> {
    Err(Violation { rule, what })
}

impl Truth {
    fn claimed(claim: ClaimOf) -> Self {
        Self::Claimed {
            claim,
            lease: LEASE,
            expires: LEASE + TTL,
        }
    }

    pub(super) fn tick(self) -> Self {
        match self {
            Self::Claimed { expires: ..=1, .. } | Self::Completed { expires: ..=1, .. } | Self::Absent => Self::Absent,
            Self::Claimed { claim, lease, expires } => Self::Claimed {
                claim,
                lease: lease.saturating_sub(1),
                expires: expires - 1,
            },
            Self::Completed { owner, kept, expires } => Self::Completed {
                owner,
                kept,
                expires: expires - 1,
            },
        }
    }

    /// Judges the reply to `message`.
    pub(super) fn judge(self, setting: &Setting, message: Message, answer: Answer, seen: &mut Witnesses) -> Judged {
        match (message, answer) {
            (Message::Claim(claim), Answer::Acquired) => self.acquired(setting, claim, None, seen),
            (Message::TakeOver { lapsed, claim }, Answer::Acquired) => {
                self.acquired(setting, claim, Some(lapsed), seen)
            }
            (Message::Claim(claim) | Message::TakeOver { claim, .. }, Answer::Existing(record)) => {
                self.refused(setting, claim, record)
            }
            (Message::Renew(claim), Answer::Applied | Answer::Superseded) => self.renewed(claim, answer, seen),
            (Message::Complete(claim, outcome), Answer::Applied | Answer::Superseded) => {
                let completed = Self::Completed {
                    owner: claim.request,
                    kept: outcome.kept(claim.request),
                    expires: outcome.ttl(),
                };
                self.completed(claim, completed, answer, seen)
            }
            (Message::Release(claim, reason), Answer::Applied | Answer::Superseded) => {
                self.released(claim, reason, answer, seen)
            }
            (Message::Read, Answer::Found(found)) => self.found(setting, found, seen),
            _ => broken("contract", "the reply is not one to this call"),
        }
    }

    fn is_claim_of(self, claim: ClaimOf) -> bool {
        matches!(self, Self::Claimed { claim: held, .. } if held.request == claim.request)
    }

    fn is_completion_of(self, claim: ClaimOf) -> bool {
        matches!(self, Self::Completed { owner, .. } if owner == claim.request)
    }

    /// A claim was acquired; as the takeover of `lapsed`, if that is given.
    fn acquired(self, setting: &Setting, claim: ClaimOf, lapsed: Option<ClaimOf>, seen: &mut Witnesses) -> Judged {
        match self {
            Self::Absent => Ok(Self::claimed(claim)),
            Self::Claimed { .. } if self.is_claim_of(claim) => {
                seen.add(Witness::RepeatedClaim);
                Ok(self)
            }
            Self::Claimed { lease: 1.., .. } => broken("IDEM-1", "a second claim is acquired while one holds"),
            Self::Claimed { claim: held, .. } => {
                seen.add(Witness::TakeOver);
                setting.judge_another_attempt(held, claim, lapsed)?;
                Ok(Self::claimed(ClaimOf { age: held.age, ..claim }))
            }
            Self::Completed { kept, .. } => broken(kept.rule(), "a claim is acquired though one is completed"),
        }
    }

    /// A claim was refused because of `record`.
    fn refused(self, setting: &Setting, claim: ClaimOf, record: Seen) -> Judged {
        if self.is_claim_of(claim) {
            return broken("IDEM-13", "a claim that is repeated is refused");
        }
        self.shows(setting, Some(record))
    }

    fn found(self, setting: &Setting, record: Option<Seen>, seen: &mut Witnesses) -> Judged {
        seen.add(match self {
            Self::Absent => Witness::ReadAbsent,
            Self::Claimed { .. } => Witness::ReadClaim,
            Self::Completed { .. } => Witness::ReadCompletion,
        });
        self.shows(setting, record)
    }

    /// `record` was seen.
    fn shows(self, setting: &Setting, record: Option<Seen>) -> Judged {
        match (self, record) {
            (Self::Absent, None) => Ok(self),
            (Self::Absent, Some(Seen::Completed { .. })) => broken("IDEM-14", "an outcome is kept for too long"),
            (Self::Absent, Some(Seen::Claimed { .. })) => {
                broken("IDEM-11", "a claim that was released, or has expired, is still there")
            }
            (
                Self::Claimed { claim, lease, .. },
                Some(Seen::Claimed {
                    claim: held,
                    has_lapsed,
                }),
            ) => {
                if held.request != claim.request {
                    broken("IDEM-8", "the claim in place is another one than the one acquired")
                } else if held.attempt != claim.attempt {
                    broken("IDEM-7", "the attempt in place is another one than the one acquired")
                } else if has_lapsed && lease > 0 {
                    broken("IDEM-1", "a claim lapses before its lease has passed")
                } else if !has_lapsed && lease == 0 {
                    broken("IDEM-7", "a claim does not lapse though its lease has passed")
                } else {
                    Ok(self)
                }
            }
            (Self::Claimed { .. }, Some(Seen::Completed { .. })) => broken("IDEM-8", "a claim that holds is completed"),
            (Self::Claimed { .. }, None) => broken("IDEM-7", "a claim is gone before its time"),
            (Self::Completed { owner, kept, .. }, Some(Seen::Completed { like, kept: found })) => {
                let fingerprint = setting.fingerprints[usize::from(owner)];
                if like != setting.first_with(&fingerprint) {
                    broken("IDEM-3", "an outcome has the fingerprint of another request")
                } else if kept != found {
                    broken(kept.rule(), "an outcome is not the one that was recorded")
                } else {
                    Ok(self)
                }
            }
            (Self::Completed { kept, .. }, _) => broken(kept.rule(), "an outcome is gone before its time"),
        }
    }

    fn renewed(self, claim: ClaimOf, answer: Answer, seen: &mut Witnesses) -> Judged {
        match self {
            Self::Claimed { claim: held, lease, .. } if held.request == claim.request => {
                if answer == Answer::Superseded {
                    return broken("IDEM-7", "a claim that is in place cannot be renewed");
                }
                seen.add_if(lease == 0, Witness::RenewedAfterLapse);
                seen.add_if(lease == 1, Witness::Renewed);
                Ok(Self::claimed(held))
            }
            // What it does to the outcome shows in the replies to others.
            _ if self.is_completion_of(claim) => Ok(self),
            _ => self.superseded(answer, Witness::SupersededRenewal, seen),
        }
    }

    fn completed(self, claim: ClaimOf, completed: Self, answer: Answer, seen: &mut Witnesses) -> Judged {
        if self.is_claim_of(claim) {
            return match answer {
                Answer::Applied => Ok(completed),
                _ => broken("IDEM-8", "an owner that was not superseded cannot complete"),
            };
        }
        if self.is_completion_of(claim) {
            seen.add(Witness::RepeatedCompletion);
            return match answer {
                Answer::Applied => Ok(self),
                _ => broken("IDEM-13", "a completion that is repeated is refused"),
            };
        }
        self.superseded(answer, Witness::SupersededCompletion, seen)
    }

    fn released(self, claim: ClaimOf, reason: Reason, answer: Answer, seen: &mut Witnesses) -> Judged {
        match self {
            Self::Claimed { claim: held, .. } if held.request == claim.request => {
                if answer == Answer::Superseded {
                    return broken("IDEM-11", "an owner that was not superseded cannot release");
                }
                match reason {
                    Reason::None => {
                        return broken(
                            "IDEM-6",
                            "the claim of a started handler ends by what is not its outcome",
                        );
                    }
                    Reason::NotStarted if held.attempt > 1 => {
                        return broken("IDEM-7", "a release erases that there was an earlier attempt");
                    }
                    Reason::NotStarted | Reason::Outcome => {}
                }
                seen.add(Witness::Released);
                Ok(Self::Absent)
            }
            // What it does to the outcome shows in the replies to others.
            _ if self.is_completion_of(claim) => Ok(self),
            _ => self.superseded(answer, Witness::SupersededRelease, seen),
        }
    }

    fn superseded(self, answer: Answer, witness: Witness, seen: &mut Witnesses) -> Judged {
        if answer != Answer::Superseded {
            return broken("IDEM-8", "a superseded owner's call takes effect");
        }
        seen.add_if(self != Self::Absent, witness);
        Ok(self)
    }
}

impl Kept {
    /// The rule by which nothing runs again after this outcome.
    fn rule(self) -> &'static str {
        match self {
            Self::Answer(_) => "IDEM-2",
            Self::Nothing => "IDEM-12",
            Self::Unknown => "IDEM-11",
        }
    }
}

impl Setting {
    /// Judges that `claim` has replaced the lapsed claim `held`.
    fn judge_another_attempt(&self, held: ClaimOf, claim: ClaimOf, lapsed: Option<ClaimOf>) -> Result<(), Violation> {
        if self.differ(held.request, claim.request) {
            return broken("IDEM-3", "another request takes a lapsed claim over");
        }
        if lapsed.is_none() {
            return broken("IDEM-7", "a lapsed claim is taken for absent");
        }
        if claim.attempt != held.attempt + 1 {
            return broken("IDEM-7", "the attempt is not one more than the last one");
        }
        if !self.allows(held.attempt) {
            return broken("IDEM-7", "a request runs again against its policy");
        }
        Ok(())
    }

    /// Whether the requests have fingerprints that differ.
    pub(super) fn differ(&self, one: u8, other: u8) -> bool {
        let [one, other] = [one, other].map(|request| self.fingerprints[usize::from(request)]);
        one.differs_from(&other)
    }

    /// Whether a request may run again after `attempts`.
    pub(super) fn allows(&self, attempts: u8) -> bool {
        let most = self.policy.max_attempts();
        self.policy.after_crash() == AfterCrash::Rerun && most.is_none_or(|most| u32::from(attempts) < most)
    }
}
