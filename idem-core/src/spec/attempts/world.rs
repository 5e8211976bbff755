//! The small world: a record, attempts, and calls that are on their way.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::spec::{Call, Reply, State, Time};
use crate::{AfterCrash, Claim, ClaimPolicy, Completion, Fingerprint, Owner, Token};

/// How many attempts there are.
pub(super) const ATTEMPTS: usize = 3;

/// The time of every call. A lease that lives lapses after it, and one that has lapsed did so before.
pub(super) const NOW: Time = Time(1_000);

pub(super) const A: &str = "a";
pub(super) const B: &str = "b";
pub(super) const STARTED: Bytes = Bytes::from_static(b"started");
pub(super) const DONE: Bytes = Bytes::from_static(b"done");

/// What may not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A body was called by a later attempt than the one to which its end was acknowledged.
    RecordedRunsAgain,
    /// A call of a superseded attempt was acknowledged.
    SupersededRecords,
    /// An attempt has read fewer steps than were acknowledged.
    SuccessorMisses,
    /// A parked record has fewer steps than were acknowledged.
    ParkedForgets,
    /// The body of a step that runs at most once was called twice.
    RunsTwice,
}

/// Where an attempt is in its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum At {
    /// It has not claimed.
    Outside,
    /// It has claimed, and has not read the steps of earlier attempts.
    Reading,
    BodyA,
    RecordA,
    StartB,
    BodyB,
    RecordB,
    Complete,
    /// The handler has failed; its record is to be parked.
    Park,
    /// It has ended, or its process has died.
    Gone,
}

/// One attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attempt {
    pub(super) at: At,
    /// A call of the attempt that has not taken effect yet. It may still do so after the attempt is gone.
    pub(super) sent: Option<At>,
}

/// What is true whether or not the store says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Truth {
    /// The number of the claim to whose attempt the end of each step was acknowledged.
    pub(super) acknowledged: [Option<u8>; 2],
    /// The start of step `b` was acknowledged.
    pub(super) started: bool,
    /// How often the body of step `b` was called.
    pub(super) bodies_of_b: u8,
    /// The number of each attempt's claim, in their order; 0 before it.
    pub(super) claims: [u8; ATTEMPTS],
}

/// A state of the world.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct World {
    pub(super) store: State,
    pub(super) attempts: [Attempt; ATTEMPTS],
    pub(super) truth: Truth,
}

impl Truth {
    /// Whether no attempt has claimed after this one.
    pub(super) fn is_last(&self, attempt: usize) -> bool {
        self.claims.iter().all(|claim| *claim <= self.claims[attempt])
    }
}

impl World {
    pub(super) fn start() -> Self {
        let attempt = Attempt {
            at: At::Outside,
            sent: None,
        };
        Self {
            store: State::Absent,
            attempts: [attempt; ATTEMPTS],
            truth: Truth::default(),
        }
    }

    /// What tells this state from another one.
    pub(super) fn key(&self) -> String {
        format!("{:?} {:?} {:?}", Shown(&self.store), self.attempts, self.truth)
    }

    /// Lets the lease of the claim in place lapse.
    pub(super) fn lapse(&mut self) {
        if let State::Claimed { lapses, .. } = &mut self.store {
            *lapses = Time(NOW.0 - 1);
        }
    }

    /// Whether the store has the steps that were acknowledged.
    pub(super) fn has_acknowledged(&self, steps: &crate::spec::Steps) -> bool {
        let [a, b] = self.truth.acknowledged;
        let is_done = |name| steps.get(name) == Some(&DONE);
        (a.is_none() || is_done(A)) && (b.is_none() || is_done(B)) && (!self.truth.started || steps.contains_key(B))
    }
}

/// A state of the store without its times: whether a lease has lapsed is all that counts.
struct Shown<'a>(&'a State);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            State::Absent => write!(f, "absent"),
            State::Claimed {
                claim, lapses, steps, ..
            } => write!(f, "{:?} lapsed {} {steps:?}", claim.token, *lapses <= NOW),
            State::Parked { claim, steps, .. } => write!(f, "parked {:?} {steps:?}", claim.token),
            State::Completed { claim, .. } => write!(f, "completed {:?}", claim.token),
        }
    }
}

/// The claim of an attempt. Which attempt has which number is told by its token.
pub(super) fn claim(attempt: usize) -> Claim {
    let number = u8::try_from(attempt).unwrap_or(u8::MAX);
    let policy = ClaimPolicy::new(Duration::from_hours(24)).with_after_crash(AfterCrash::Rerun);
    Claim {
        token: Token::from_bytes([number; Token::LEN]),
        attempt: 1,
        owner: Owner::NONE,
        began_at: std::time::SystemTime::UNIX_EPOCH,
        ..Claim::first(Fingerprint::NONE, &policy)
    }
}

/// The call that an attempt makes where it is.
pub(super) fn call(attempt: usize, at: At) -> Option<Call> {
    let claim = claim(attempt);
    let record = |name: &str, step| Call::RecordStep {
        claim: claim.clone(),
        name: name.to_owned(),
        step,
    };
    Some(match at {
        At::Reading => Call::ReadSteps(claim),
        At::RecordA => record(A, DONE),
        At::StartB => record(B, STARTED),
        At::RecordB => record(B, DONE),
        At::Complete => Call::Complete {
            ttl: claim.ttl,
            claim,
            completion: Completion::NotStored,
        },
        At::Park => Call::Park(claim),
        At::Outside | At::BodyA | At::BodyB | At::Gone => return None,
    })
}

/// Whether a reply says that the call took effect.
pub(super) fn is_acknowledged(reply: &Reply) -> bool {
    matches!(reply, Reply::Fenced(crate::Fenced::Applied) | Reply::Steps(Some(_)))
}
