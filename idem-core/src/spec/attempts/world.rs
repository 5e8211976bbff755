//! The small world: a record, attempts, and calls that are on their way.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::operator::Desk;
use crate::spec::{Call, Reply, State, Time};
use crate::{AfterCrash, Claim, ClaimPolicy, Completion, Fingerprint, Owner, Token};

/// How many attempts there are.
pub(super) const ATTEMPTS: usize = 3;

/// The time of every call. A lease that lives lapses after it, and one that has lapsed did so before.
pub(super) const NOW: Time = Time(1_000);

pub(super) const A: &str = "a";
pub(super) const B: &str = "b";
const STARTS: [&str; ATTEMPTS] = ["0 started", "1 started", "2 started"];
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
    /// A record is claimed although its attempt has parked it.
    ParkedHolds,
    /// The body of a step that runs at most once was called twice.
    RunsTwice,
    /// A record that was begun anew has steps.
    ExpiredSeen,
    /// An operator has changed a record that was no longer as it was shown.
    SettledUnseen,
    /// An operator has settled a live claim without force.
    LiveSettled,
    /// A request ran although an operator had given it an outcome.
    SettledRuns,
}

impl Rule {
    /// Each of them.
    pub const ALL: [Self; 10] = [
        Self::RecordedRunsAgain,
        Self::SupersededRecords,
        Self::SuccessorMisses,
        Self::ParkedForgets,
        Self::ParkedHolds,
        Self::RunsTwice,
        Self::ExpiredSeen,
        Self::SettledUnseen,
        Self::LiveSettled,
        Self::SettledRuns,
    ];
}

/// What the handler does.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// Whether the handler can find out what became of step `b`.
    pub(super) reconciles: bool,
    /// Whether an operator settles the record.
    pub(super) operates: bool,
    /// How many calls are late or lose their reply, in one run.
    pub(super) faults: u8,
}

impl Setting {
    #[cfg(test)]
    pub(super) const fn with_faults(self, faults: u8) -> Self {
        Self { faults, ..self }
    }
}

pub(super) const INTERRUPTED: Setting = Setting {
    name: "steps, at most once",
    reconciles: false,
    operates: false,
    faults: 2,
};
pub(super) const RECONCILED: Setting = Setting {
    name: "steps, reconciled",
    reconciles: true,
    operates: false,
    faults: 2,
};
pub(super) const OPERATED: Setting = Setting {
    name: "steps, at most once, and an operator",
    reconciles: false,
    operates: true,
    faults: 1,
};

/// Each of them.
pub const SETTINGS: [Setting; 3] = [INTERRUPTED, RECONCILED, OPERATED];

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
    /// The call that recorded the start has failed, and the attempt looks whether it has arrived.
    FindStart,
    /// It asks what became of step `b`, which an earlier attempt has begun.
    Reconcile,
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
    /// It was told that the body of step `b` did not happen.
    pub(super) is_told: bool,
}

/// What is true whether or not the store says so.
#[expect(clippy::struct_excessive_bools, reason = "facts that do not exclude each other")]
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
    /// The number of the record. All but `claims` and `records` is about this one.
    pub(super) record: u8,
    /// The number of the record of each attempt's claim.
    pub(super) records: [u8; ATTEMPTS],
    /// The record has expired, or an operator has removed it.
    pub(super) is_over: bool,
    /// An operator has settled the record, and no attempt has claimed since.
    pub(super) is_settled: bool,
    /// An operator has given the record an outcome.
    pub(super) is_closed: bool,
    /// An operator has said that step `b` did not happen. That is true until a superseded attempt goes on.
    pub(super) is_denied: bool,
    /// How many claims were completed or parked, in the store.
    pub(super) ends: u8,
    /// How many calls have recorded a step, in the store.
    pub(super) recorded: u8,
}

/// A state of the world.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct World {
    pub(super) store: State,
    pub(super) attempts: [Attempt; ATTEMPTS],
    pub(super) truth: Truth,
    /// How many more calls may be late or lose their reply.
    pub(super) faults: u8,
    /// Whether a record may still expire.
    pub(super) may_expire: bool,
    /// The operator.
    pub(super) desk: Desk,
}

impl Truth {
    /// Whether no attempt has claimed after this one.
    pub(super) fn is_last(&self, attempt: usize) -> bool {
        self.claims.iter().all(|claim| *claim <= self.claims[attempt])
    }

    /// Whether the attempt has the record.
    pub(super) fn is_owner(&self, attempt: usize) -> bool {
        self.is_last(attempt) && !self.is_over && !self.is_settled
    }

    /// Whether the attempt is one of the present record.
    pub(super) fn is_of_record(&self, attempt: usize) -> bool {
        self.records[attempt] == self.record
    }

    /// The attempt has claimed, and begins a record if the one before has expired.
    pub(super) fn claimed(&mut self, attempt: usize) {
        if self.is_over {
            let (claims, records, record) = (self.claims, self.records, self.record + 1);
            let (ends, recorded) = (self.ends, self.recorded);
            *self = Self {
                claims,
                record,
                records,
                ends,
                recorded,
                ..Self::default()
            };
        }
        self.is_settled = false;
        self.claims[attempt] = self.claims.iter().max().copied().unwrap_or_default() + 1;
        self.records[attempt] = self.record;
    }
}

impl World {
    pub(super) fn start(setting: &Setting) -> Self {
        let attempt = Attempt {
            at: At::Outside,
            sent: None,
            is_told: false,
        };
        let mut attempts = [attempt; ATTEMPTS];
        if setting.operates {
            // With an operator, two attempts have more states than three have without.
            attempts[ATTEMPTS - 1].at = At::Gone;
        }
        Self {
            store: State::Absent,
            attempts,
            truth: Truth::default(),
            faults: setting.faults,
            may_expire: true,
            desk: if setting.operates { Desk::Idle } else { Desk::Empty },
        }
    }

    /// What tells this state from another one.
    pub(super) fn key(&self) -> String {
        format!(
            "{:?} {:?} {:?} {:?} {} {}",
            self.desk,
            Shown(&self.store),
            self.attempts,
            self.truth,
            self.faults,
            self.may_expire
        )
    }

    /// Lets the lease of the claim in place lapse.
    pub(super) fn lapse(&mut self) {
        if let State::Claimed { lapses, .. } = &mut self.store {
            *lapses = Time(NOW.0 - 1);
        }
    }

    /// Uses one of the faults up, if there is one left.
    pub(super) fn take_fault(&mut self) -> bool {
        let is_left = self.faults > 0;
        self.faults = self.faults.saturating_sub(1);
        is_left
    }

    /// Lets the record expire, if it is not held by a live claim; whether it did.
    pub(super) fn expire(&mut self) -> bool {
        if !std::mem::take(&mut self.may_expire) {
            return false;
        }
        let past = Time(NOW.0 - 1);
        match &mut self.store {
            State::Claimed { lapses, expires, .. } if *lapses <= NOW && *expires > NOW => *expires = past,
            State::Parked { expires, .. } | State::Completed { expires, .. } if *expires > NOW => *expires = past,
            _ => return false,
        }
        self.truth.is_over = true;
        true
    }

    /// Counts the end of a claim, or a step, if the store was in the state `before`. Only an operator who may still settle needs the count.
    pub(super) fn count_end(&mut self, before: &State) {
        if self.desk == Desk::Empty {
            return;
        }
        let was_claimed = matches!(before, State::Claimed { .. });
        let is_claimed = matches!(self.store, State::Claimed { .. });
        self.truth.ends += u8::from(was_claimed && !is_claimed);
        let has_other_steps = steps_of(&self.store) != steps_of(before);
        self.truth.recorded += u8::from(was_claimed && is_claimed && has_other_steps);
    }

    /// Whether the store has the steps that were acknowledged.
    pub(super) fn has_acknowledged(&self, steps: &crate::spec::Steps) -> bool {
        let [a, b] = self.truth.acknowledged;
        let is_done = |name| steps.get(name) == Some(&DONE);
        (a.is_none() || is_done(A)) && (b.is_none() || is_done(B)) && (!self.truth.started || steps.contains_key(B))
    }
}

fn steps_of(store: &State) -> Option<&crate::spec::Steps> {
    match store {
        State::Claimed { steps, .. } | State::Parked { steps, .. } => Some(steps),
        State::Absent | State::Completed { .. } => None,
    }
}

/// A state of the store without its times: whether a lease has lapsed is all that counts.
struct Shown<'a>(&'a State);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self.0.at(NOW) != *self.0 {
            write!(f, "expired ")?;
        }
        match self.0 {
            State::Absent => write!(f, "absent"),
            State::Claimed {
                claim, lapses, steps, ..
            } => write!(f, "{:?} lapsed {} {steps:?}", claim.token, *lapses <= NOW),
            State::Parked { claim, steps, .. } => write!(f, "parked {:?} {steps:?}", claim.token),
            State::Completed { claim, .. } => write!(f, "completed {:?} {}", claim.token, claim.has_steps),
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

/// What an attempt records of the start of step `b`. It says by which attempt.
pub(super) fn start_by(attempt: usize) -> Bytes {
    Bytes::from_static(STARTS[attempt].as_bytes())
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
        At::Reading | At::FindStart => Call::ReadSteps(claim),
        At::RecordA => record(A, DONE),
        At::StartB => record(B, start_by(attempt)),
        At::RecordB => record(B, DONE),
        At::Complete => Call::Complete {
            ttl: claim.ttl,
            claim,
            completion: Completion::NotStored,
        },
        At::Park => Call::Park(claim),
        At::Outside | At::BodyA | At::Reconcile | At::BodyB | At::Gone => return None,
    })
}

/// Whether a reply says that the call took effect.
pub(super) fn is_acknowledged(reply: &Reply) -> bool {
    matches!(reply, Reply::Fenced(crate::Fenced::Applied) | Reply::Steps(Some(_)))
}
