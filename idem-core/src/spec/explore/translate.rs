//! Between the small world and the types of the contract.
//!
//! Owns both directions. Each value of the small world is one value of the contract at one fixed time.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::setting::{Outcome, SHORT_TTL, Setting, TICK, TTL, ticks};
use super::world::{Answer, ClaimOf, Kept, Message, Seen, Stored};
use crate::spec::{Call, Reply, State, Steps, Time};
use crate::{Claim, Completion, Fenced, Fingerprint, Owner, Record, Token};

/// The time of every call: the small world's times are relative to it.
pub(super) const NOW: Time = Time(1_000_000);

/// The bytes of the handlers' answers, one per request.
const ANSWERS: [&[u8]; 3] = [&[0], &[1], &[2]];

/// The time of day at [`NOW`].
pub(super) fn today() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(NOW.0)
}

impl Setting {
    pub(super) fn claim(&self, of: ClaimOf) -> Claim {
        Claim {
            token: Token::from_bytes([of.request; Token::LEN]),
            attempt: of.attempt.into(),
            fingerprint: self.fingerprints[usize::from(of.request)],
            lease: self.policy.lease(),
            ttl: self.policy.ttl(),
            began_at: today() - ticks(of.age),
            owner: Owner::NONE,
            has_steps: false,
        }
    }

    pub(super) fn state(&self, stored: Stored) -> State {
        match stored {
            Stored::Absent => State::Absent,
            Stored::Claimed { claim, lapses, expires } => State::Claimed {
                claim: self.claim(claim),
                lapses: NOW.after(ticks(lapses)),
                expires: NOW.after(ticks(expires)),
                steps: Steps::new(),
            },
            Stored::Completed { owner, kept, expires } => State::Completed {
                claim: self.claim(ClaimOf::first(owner)),
                completion: completion(kept),
                expires: NOW.after(ticks(expires)),
            },
        }
    }

    pub(super) fn call(&self, message: Message) -> Call {
        match message {
            Message::Claim(claim) => Call::Claim(self.claim(claim)),
            Message::TakeOver { lapsed, claim } => Call::TakeOver {
                lapsed: self.claim(lapsed),
                claim: self.claim(claim),
            },
            Message::Renew(claim) => Call::Renew(self.claim(claim)),
            Message::Complete(claim, outcome) => Call::Complete {
                claim: self.claim(claim),
                completion: completion(outcome.kept(claim.request)),
                ttl: ticks(outcome.ttl()),
            },
            Message::Release(claim, _) => Call::Release(self.claim(claim)),
            Message::Read => Call::Read,
        }
    }

    pub(super) fn record(&self, seen: Seen) -> Record {
        match seen {
            Seen::Claimed { claim, has_lapsed } => Record::Claimed {
                claim: self.claim(claim),
                remaining: if has_lapsed { Duration::ZERO } else { TICK },
            },
            Seen::Completed { like, kept } => Record::Completed {
                fingerprint: self.fingerprints[usize::from(like)],
                completion: completion(kept),
            },
        }
    }

    /// A record that the function has replied.
    fn seen(&self, record: &Record) -> Seen {
        match record {
            Record::Claimed { claim, remaining } => Seen::Claimed {
                claim: claim_of(claim),
                has_lapsed: remaining.is_zero(),
            },
            Record::Parked { .. } => unreachable!("the small world has no steps"),
            Record::Completed {
                fingerprint,
                completion,
            } => Seen::Completed {
                like: self.first_with(fingerprint),
                kept: kept(completion),
            },
        }
    }

    /// The first request with this fingerprint.
    pub(super) fn first_with(&self, fingerprint: &Fingerprint) -> u8 {
        (0..)
            .zip(self.fingerprints)
            .find(|(_, of)| of == fingerprint)
            .map_or(0, |(at, _)| at)
    }

    pub(super) fn answer(&self, reply: &Reply) -> Answer {
        match reply {
            Reply::Acquired => Answer::Acquired,
            Reply::Existing(record) => Answer::Existing(self.seen(record)),
            Reply::Fenced(Fenced::Applied) => Answer::Applied,
            Reply::Fenced(Fenced::Superseded) => Answer::Superseded,
            Reply::Found(record) => Answer::Found(record.as_ref().map(|record| self.seen(record))),
            Reply::Steps(_) => unreachable!("the small world has no steps"),
            Reply::Settled(_) => unreachable!("the small world has no operator"),
        }
    }
}

impl ClaimOf {
    /// The claim of a first attempt that begins now.
    pub(super) fn first(request: u8) -> Self {
        Self {
            request,
            attempt: 1,
            age: 0,
        }
    }
}

impl Outcome {
    /// What is recorded of the handler of `request`.
    pub(super) fn kept(self, request: u8) -> Kept {
        match self {
            Self::Keep | Self::KeepFor | Self::Commit => Kept::Answer(request),
            Self::NotStored | Self::Release => Kept::Nothing,
            Self::Unknown => Kept::Unknown,
        }
    }

    /// For how many ticks.
    pub(super) fn ttl(self) -> u8 {
        if self == Self::KeepFor { SHORT_TTL } else { TTL }
    }
}

pub(super) fn stored(state: &State) -> Stored {
    match state {
        State::Absent => Stored::Absent,
        State::Parked { .. } => unreachable!("the small world has no steps"),
        State::Claimed {
            claim, lapses, expires, ..
        } => Stored::Claimed {
            claim: claim_of(claim),
            lapses: left(*lapses),
            expires: left(*expires),
        },
        State::Completed {
            claim,
            completion,
            expires,
        } => Stored::Completed {
            owner: claim_of(claim).request,
            kept: kept(completion),
            expires: left(*expires),
        },
    }
}

pub(super) fn claim_of(claim: &Claim) -> ClaimOf {
    let [request, ..] = claim.token.to_bytes();
    let age = today().duration_since(claim.began_at).unwrap_or_default();
    ClaimOf {
        request,
        attempt: small(u128::from(claim.attempt)),
        age: whole_ticks(age),
    }
}

fn completion(kept: Kept) -> Completion {
    match kept {
        Kept::Answer(of) => Completion::Stored(Bytes::from_static(ANSWERS[usize::from(of)])),
        Kept::Nothing => Completion::NotStored,
        Kept::Unknown => Completion::Unknown,
    }
}

fn kept(completion: &Completion) -> Kept {
    match completion {
        Completion::Stored(payload) => Kept::Answer(payload.first().copied().unwrap_or_default()),
        Completion::NotStored => Kept::Nothing,
        Completion::Unknown => Kept::Unknown,
    }
}

fn left(time: Time) -> u8 {
    whole_ticks(time.left_at(NOW))
}

fn whole_ticks(time: Duration) -> u8 {
    small(time.as_millis() / TICK.as_millis())
}

fn small(number: u128) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}
