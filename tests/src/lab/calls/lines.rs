//! An event as a line of JSON.
//!
//! Owns the form of the file. Nothing but the lab reads it, and only in the round that wrote it.

use std::time::Duration;

use bytes::Bytes;
use idem_core::claim::{millis_of_time, time_from_millis};
use idem_core::inspect::{LiveClaim, Settled, Settlement, StepChange};
use idem_core::spec::history::{CallId, Event};
use idem_core::spec::{Call, Reply};
use idem_core::{Claim, Completion, Fenced, Fingerprint, Owner, Record, Token};
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Line {
    Began(u32, u64, Duration, String, Asked),
    Returned(u32, u64, Duration, Option<Answered>),
    Lost(Duration, Duration, bool),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Asked {
    Claim(ClaimLine),
    TakeOver(ClaimLine, ClaimLine),
    Renew(ClaimLine),
    Complete(ClaimLine, Outcome, Duration),
    Release(ClaimLine),
    Read,
    RecordStep(ClaimLine, String, Vec<u8>),
    ReadSteps(ClaimLine),
    Park(ClaimLine),
    /// The version in its printed form, and whether a live claim is settled too.
    Settle(String, SettlementLine, bool),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum SettlementLine {
    Forget,
    /// When attempt 1 counts as begun, and the step that changes, with its bytes or without.
    Rerun(u64, Option<(String, Option<Vec<u8>>)>),
    Complete([u8; Token::LEN], Outcome, Duration),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answered {
    Acquired,
    Existing(RecordLine),
    Fenced(bool),
    Found(Option<RecordLine>),
    Steps(Option<Vec<(String, Vec<u8>)>>),
    Settled(bool),
    Live(Duration),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum RecordLine {
    Claimed(ClaimLine, Duration),
    Parked(ClaimLine),
    Completed(Vec<u8>, Outcome),
}

/// Token, attempt, fingerprint, lease, ttl, the begin of the first attempt, the owner, and whether it has steps.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ClaimLine([u8; Token::LEN], u32, Vec<u8>, Duration, Duration, u64, String, bool);

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Outcome {
    Stored(Vec<u8>),
    NotStored,
    Unknown,
}

impl Line {
    pub(super) fn of(event: Event) -> Self {
        match event {
            Event::Began { id, at, key, call } => Self::Began(id.process, id.number, at, key, Asked::of(&call)),
            Event::Returned { id, at, reply } => {
                Self::Returned(id.process, id.number, at, reply.as_ref().map(Answered::of))
            }
            Event::Lost { from, to, goes_back } => Self::Lost(from, to, goes_back),
        }
    }

    pub(super) fn event(self) -> Event {
        match self {
            Self::Began(process, number, at, key, asked) => Event::Began {
                id: CallId { process, number },
                at,
                key,
                call: asked.call(),
            },
            Self::Returned(process, number, at, answered) => Event::Returned {
                id: CallId { process, number },
                at,
                reply: answered.map(Answered::reply),
            },
            Self::Lost(from, to, goes_back) => Event::Lost { from, to, goes_back },
        }
    }
}

impl Asked {
    fn of(call: &Call) -> Self {
        match call {
            Call::Claim(claim) => Self::Claim(ClaimLine::of(claim)),
            Call::TakeOver { lapsed, claim } => Self::TakeOver(ClaimLine::of(lapsed), ClaimLine::of(claim)),
            Call::Renew(claim) => Self::Renew(ClaimLine::of(claim)),
            Call::Complete { claim, completion, ttl } => {
                Self::Complete(ClaimLine::of(claim), Outcome::of(completion), *ttl)
            }
            Call::Release(claim) => Self::Release(ClaimLine::of(claim)),
            Call::Read => Self::Read,
            Call::RecordStep { claim, name, step } => {
                Self::RecordStep(ClaimLine::of(claim), name.clone(), step.to_vec())
            }
            Call::ReadSteps(claim) => Self::ReadSteps(ClaimLine::of(claim)),
            Call::Park(claim) => Self::Park(ClaimLine::of(claim)),
            Call::Settle {
                version,
                settlement,
                live,
            } => Self::Settle(
                version.to_string(),
                SettlementLine::of(settlement),
                *live == LiveClaim::Force,
            ),
        }
    }

    fn call(self) -> Call {
        match self {
            Self::Claim(claim) => Call::Claim(claim.claim()),
            Self::TakeOver(lapsed, claim) => Call::TakeOver {
                lapsed: lapsed.claim(),
                claim: claim.claim(),
            },
            Self::Renew(claim) => Call::Renew(claim.claim()),
            Self::Complete(claim, outcome, ttl) => Call::Complete {
                claim: claim.claim(),
                completion: outcome.completion(),
                ttl,
            },
            Self::Release(claim) => Call::Release(claim.claim()),
            Self::Read => Call::Read,
            Self::RecordStep(claim, name, step) => Call::RecordStep {
                claim: claim.claim(),
                name,
                step: step.into(),
            },
            Self::ReadSteps(claim) => Call::ReadSteps(claim.claim()),
            Self::Park(claim) => Call::Park(claim.claim()),
            Self::Settle(version, settlement, is_forced) => Call::Settle {
                version: version.parse().expect("it was printed"),
                settlement: settlement.settlement(),
                live: if is_forced { LiveClaim::Force } else { LiveClaim::Refuse },
            },
        }
    }
}

impl SettlementLine {
    fn of(settlement: &Settlement) -> Self {
        match settlement {
            Settlement::Forget => Self::Forget,
            Settlement::Rerun { began_at, step } => {
                let step = step.as_ref().map(|step| match step {
                    StepChange::Done { name, step } => (name.clone(), Some(step.to_vec())),
                    StepChange::NotDone { name } => (name.clone(), None),
                });
                Self::Rerun(millis_of_time(*began_at), step)
            }
            Settlement::Complete { token, completion, ttl } => {
                Self::Complete(token.to_bytes(), Outcome::of(completion), *ttl)
            }
        }
    }

    fn settlement(self) -> Settlement {
        match self {
            Self::Forget => Settlement::Forget,
            Self::Rerun(began_at, step) => Settlement::Rerun {
                began_at: time_from_millis(began_at),
                step: step.map(|(name, step)| match step.map(Bytes::from) {
                    Some(step) => StepChange::Done { name, step },
                    None => StepChange::NotDone { name },
                }),
            },
            Self::Complete(token, outcome, ttl) => Settlement::Complete {
                token: Token::from_bytes(token),
                completion: outcome.completion(),
                ttl,
            },
        }
    }
}

impl Answered {
    fn of(reply: &Reply) -> Self {
        match reply {
            Reply::Acquired => Self::Acquired,
            Reply::Existing(record) => Self::Existing(RecordLine::of(record)),
            Reply::Fenced(fenced) => Self::Fenced(*fenced == Fenced::Applied),
            Reply::Found(record) => Self::Found(record.as_ref().map(RecordLine::of)),
            Reply::Steps(steps) => {
                let line = |(name, step): (&String, &Bytes)| (name.clone(), step.to_vec());
                Self::Steps(steps.as_ref().map(|steps| steps.iter().map(line).collect()))
            }
            Reply::Settled(Settled::Live(left)) => Self::Live(*left),
            Reply::Settled(settled) => Self::Settled(*settled == Settled::Applied),
        }
    }

    fn reply(self) -> Reply {
        match self {
            Self::Acquired => Reply::Acquired,
            Self::Existing(record) => Reply::Existing(record.record()),
            Self::Fenced(true) => Reply::Fenced(Fenced::Applied),
            Self::Fenced(false) => Reply::Fenced(Fenced::Superseded),
            Self::Found(record) => Reply::Found(record.map(RecordLine::record)),
            Self::Steps(steps) => {
                let step = |(name, step): (String, Vec<u8>)| (name, step.into());
                Reply::Steps(steps.map(|steps| steps.into_iter().map(step).collect()))
            }
            Self::Settled(true) => Reply::Settled(Settled::Applied),
            Self::Settled(false) => Reply::Settled(Settled::Changed),
            Self::Live(left) => Reply::Settled(Settled::Live(left)),
        }
    }
}

impl RecordLine {
    fn of(record: &Record) -> Self {
        match record {
            Record::Claimed { claim, remaining } => Self::Claimed(ClaimLine::of(claim), *remaining),
            Record::Parked { claim } => Self::Parked(ClaimLine::of(claim)),
            Record::Completed {
                fingerprint,
                completion,
            } => Self::Completed(fingerprint.to_bytes().into(), Outcome::of(completion)),
        }
    }

    fn record(self) -> Record {
        match self {
            Self::Claimed(claim, remaining) => Record::Claimed {
                claim: claim.claim(),
                remaining,
            },
            Self::Parked(claim) => Record::Parked { claim: claim.claim() },
            Self::Completed(fingerprint, outcome) => Record::Completed {
                fingerprint: fingerprint_of(fingerprint),
                completion: outcome.completion(),
            },
        }
    }
}

impl ClaimLine {
    fn of(claim: &Claim) -> Self {
        Self(
            claim.token.to_bytes(),
            claim.attempt,
            claim.fingerprint.to_bytes().into(),
            claim.lease,
            claim.ttl,
            millis_of_time(claim.began_at),
            claim.owner.as_str().to_owned(),
            claim.has_steps,
        )
    }

    fn claim(self) -> Claim {
        let Self(token, attempt, fingerprint, lease, ttl, began_at, owner, has_steps) = self;
        Claim {
            token: Token::from_bytes(token),
            attempt,
            fingerprint: fingerprint_of(fingerprint),
            lease,
            ttl,
            began_at: time_from_millis(began_at),
            owner: Owner::new(&owner),
            has_steps,
        }
    }
}

fn fingerprint_of(bytes: Vec<u8>) -> Fingerprint {
    Fingerprint::from_bytes(bytes.try_into().expect("the length of a fingerprint"))
}

impl Outcome {
    fn of(completion: &Completion) -> Self {
        match completion {
            Completion::Stored(payload) => Self::Stored(payload.to_vec()),
            Completion::NotStored => Self::NotStored,
            Completion::Unknown => Self::Unknown,
        }
    }

    fn completion(self) -> Completion {
        match self {
            Self::Stored(payload) => Completion::Stored(payload.into()),
            Self::NotStored => Completion::NotStored,
            Self::Unknown => Completion::Unknown,
        }
    }
}
