//! The contract of [`Backend`](crate::Backend) as one pure function, [`step`].
//!
//! Owns the meaning of clauses 1 to 10, 12, 15 and, for a store that keeps steps, 16 to 21, and for an operator's calls 25 to 28, for
//! a single key: which state a call leaves, and which reply it gets. Owns
//! no store and no clock: the caller passes the state and the time. Each rule in [`step`] cites its clause.
//!
//! Does not own four clauses, because they are not about the state of a readable record:
//!
//! - Clause 11, unreadable records: [`State`] has no unreadable state. The conformance kit tests the clause.
//! - Clause 13, notifications: the conformance kit tests them.
//! - Clause 14, `check`: it changes no record and has no part in the state.
//! - Clause 22, lost steps: [`State`] loses none.
//! - Clauses 23, 24 and 30, what operators see: they change no record. The conformance kit tests them, and clause 29.
//!
//! The function is exact about time: a lease lapses at the millisecond [`State::Claimed::lapses`], and a record is gone at the
//! millisecond `expires`. A checker of a real store has to allow for the time that a call is on its way.
//!
//! ```
//! use std::time::Duration;
//!
//! use idem_core::spec::{Call, Reply, State, Time, step};
//! use idem_core::{Claim, ClaimPolicy, Fingerprint};
//!
//! let claim = Claim::first(Fingerprint::NONE, &ClaimPolicy::new(Duration::from_secs(60)));
//! let (state, reply) = step(&State::Absent, Time(0), &Call::Claim(claim));
//! assert_eq!(reply, Reply::Acquired);
//! let (_, reply) = step(&state, Time(1_000), &Call::Read);
//! assert!(matches!(reply, Reply::Found(Some(_))));
//! ```

pub mod attempts;
pub mod explore;
pub mod history;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::inspect::{LiveClaim, Phase, RecordVersion, Settled, Settlement, StepsDigest};
use crate::{Claim, Completion, Fenced, Record, Token};

/// A time of the store's clock, in milliseconds since an origin that the caller chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// The time `duration` later, in whole milliseconds.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// How long it is from `now` until this time; zero if this time has passed.
    #[must_use]
    pub fn left_at(self, now: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(now.0))
    }
}

/// A call of [`Backend`](crate::Backend) on one key, with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`Backend::claim`](crate::Backend::claim).
    Claim(Claim),
    /// [`Backend::take_over`](crate::Backend::take_over).
    TakeOver {
        /// The claim that the caller has found lapsed.
        lapsed: Claim,
        /// The claim to put in its place.
        claim: Claim,
    },
    /// [`Backend::renew`](crate::Backend::renew).
    Renew(Claim),
    /// [`Backend::complete`](crate::Backend::complete).
    Complete {
        /// The claim to end.
        claim: Claim,
        /// Its outcome.
        completion: Completion,
        /// How long the completion stays.
        ttl: Duration,
    },
    /// [`Backend::release`](crate::Backend::release).
    Release(Claim),
    /// [`Backend::read`](crate::Backend::read).
    Read,
    /// [`StepBackend::record_step`](crate::steps::StepBackend::record_step).
    RecordStep {
        /// The claim whose step it is.
        claim: Claim,
        /// The name of the step.
        name: String,
        /// Its bytes.
        step: Bytes,
    },
    /// [`StepBackend::read_steps`](crate::steps::StepBackend::read_steps).
    ReadSteps(Claim),
    /// [`StepBackend::park`](crate::steps::StepBackend::park).
    Park(Claim),
    /// [`Inspect::settle`](crate::inspect::Inspect::settle).
    Settle {
        /// The token and the phase that the operator has seen.
        version: RecordVersion,
        /// The change.
        settlement: Settlement,
        /// Whether a claim may be settled whose lease has not lapsed.
        live: LiveClaim,
    },
}

impl Call {
    /// The claim that the caller makes or owns; `None` for a read and for an operator's call.
    #[must_use]
    pub fn claim(&self) -> Option<&Claim> {
        match self {
            Self::Claim(claim)
            | Self::TakeOver { claim, .. }
            | Self::Renew(claim)
            | Self::Complete { claim, .. }
            | Self::Release(claim)
            | Self::RecordStep { claim, .. }
            | Self::ReadSteps(claim)
            | Self::Park(claim) => Some(claim),
            Self::Read | Self::Settle { .. } => None,
        }
    }
}

/// The answer to a [`Call`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To a claim or a takeover: the claim is in place.
    Acquired,
    /// To a claim or a takeover: this record is under the key, and nothing was changed.
    Existing(Record),
    /// To a renewal, a completion, a release, a step or a parking.
    Fenced(Fenced),
    /// To a read: what is under the key.
    Found(Option<Record>),
    /// To a reading of steps: all of them, or `None` if the claim is not in place.
    Steps(Option<Steps>),
    /// To an operator's settlement.
    Settled(Settled),
}

/// The steps of a record, by their names.
pub type Steps = BTreeMap<String, Bytes>;

/// What is stored under one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    #[default]
    Absent,
    /// A claim, lapsed or not.
    Claimed {
        /// The claim as it was written.
        claim: Claim,
        /// When its lease lapses.
        lapses: Time,
        /// When the claim is gone.
        expires: Time,
        /// Its steps, and those of the claims that it has taken over.
        steps: Steps,
    },
    /// A claim whose attempt has ended, and its steps.
    Parked {
        /// The claim as it was written.
        claim: Claim,
        /// When it is gone.
        expires: Time,
        /// Its steps. There is at least one.
        steps: Steps,
    },
    /// The outcome of a claim.
    Completed {
        /// The claim that was completed. Its token tells a repeated completion from another owner's.
        claim: Claim,
        /// The outcome.
        completion: Completion,
        /// When the outcome is gone.
        expires: Time,
    },
}

impl State {
    /// The state of a claim whose lease starts `now`: clause 4.
    fn claimed(claim: &Claim, steps: Steps, now: Time) -> Self {
        let lapses = now.after(claim.lease);
        let expires = lapses.after(claim.ttl);
        let has_steps = !steps.is_empty();
        let claim = Claim {
            has_steps,
            ..claim.clone()
        };
        Self::Claimed {
            claim,
            lapses,
            expires,
            steps,
        }
    }

    /// What is left of the state at `now`: clauses 4 and 7 say when a record is gone.
    #[must_use]
    pub fn at(&self, now: Time) -> &Self {
        match self {
            Self::Claimed { expires, .. } | Self::Parked { expires, .. } | Self::Completed { expires, .. }
                if *expires <= now =>
            {
                &Self::Absent
            }
            present => present,
        }
    }

    /// The record as a caller sees it at `now`; `None` if there is none.
    #[must_use]
    pub fn record(&self, now: Time) -> Option<Record> {
        match self.at(now) {
            Self::Absent => None,
            Self::Claimed { claim, lapses, .. } => Some(Record::Claimed {
                claim: claim.clone(),
                remaining: lapses.left_at(now),
            }),
            Self::Parked { claim, .. } => Some(Record::Parked { claim: claim.clone() }),
            Self::Completed { claim, completion, .. } => Some(Record::Completed {
                fingerprint: claim.fingerprint,
                completion: completion.clone(),
            }),
        }
    }

    /// What a change by an operator is fenced by; `None` if nothing is there.
    #[must_use]
    pub fn version(&self) -> Option<RecordVersion> {
        let none = Steps::new();
        let (claim, phase, steps) = match self {
            Self::Absent => return None,
            Self::Claimed { claim, steps, .. } => (claim, Phase::Claimed, steps),
            Self::Parked { claim, steps, .. } => (claim, Phase::Parked, steps),
            Self::Completed { claim, .. } => (claim, Phase::Completed, &none),
        };
        let token = claim.token;
        let steps = StepsDigest::of(steps.iter().map(|(name, step)| (name.as_str(), &step[..])));
        Some(RecordVersion { token, phase, steps })
    }

    /// Whether the claim with this `token` is in place, lapsed or not.
    #[must_use]
    pub fn is_claim_of(&self, token: Token) -> bool {
        matches!(self, Self::Claimed { claim, .. } if claim.token == token)
    }

    /// Whether the outcome of the claim with this `token` is in place.
    fn is_completion_of(&self, token: Token) -> bool {
        matches!(self, Self::Completed { claim, .. } if claim.token == token)
    }

    /// The steps of exactly the claim `ownerless`, if it is in place and has no owner any more: its lease has lapsed, or it is parked.
    fn ownerless_steps(&self, ownerless: &Claim, now: Time) -> Option<&Steps> {
        match self {
            Self::Claimed {
                claim, lapses, steps, ..
            } if claim == ownerless && *lapses <= now => Some(steps),
            Self::Parked { claim, steps, .. } if claim == ownerless => Some(steps),
            _ => None,
        }
    }
}

/// Performs `call` on a key that is in `state`, at the time `now`: the state afterwards, and the reply.
///
/// The arguments are one key's, so clause 12 holds by construction. Values are stored and returned as they are, which is
/// clause 10.
#[must_use]
pub fn step(state: &State, now: Time, call: &Call) -> (State, Reply) {
    let state = state.at(now);
    match call {
        Call::Claim(claim) => acquire(state, now, claim, None),
        Call::TakeOver { lapsed, claim } => acquire(state, now, claim, Some(lapsed)),
        // Clause 6: the lease starts anew, lapsed or not. The lease and the ttl are those the claim was written with.
        Call::Renew(claim) => match state {
            State::Claimed { claim: held, steps, .. } if held.token == claim.token => {
                (State::claimed(held, steps.clone(), now), APPLIED)
            }
            _ => superseded(state),
        },
        Call::Complete { claim, completion, ttl } => complete(state, now, claim, completion, *ttl),
        // Clause 8: the claim is gone, lapsed or not, as if it had never been made.
        Call::Release(claim) if state.is_claim_of(claim.token) => (State::Absent, APPLIED),
        Call::Release(_) => superseded(state),
        // Clause 15: a read changes nothing.
        Call::Read => (state.clone(), Reply::Found(state.record(now))),
        Call::RecordStep { claim, name, step } => record_step(state, now, claim, (name, step)),
        // Clause 17: it changes nothing. Clause 20: a parked claim has no owner.
        Call::ReadSteps(claim) => match state {
            State::Claimed { claim: held, steps, .. } if held.token == claim.token => {
                (state.clone(), Reply::Steps(Some(steps.clone())))
            }
            _ => (state.clone(), Reply::Steps(None)),
        },
        Call::Park(claim) => park(state, now, claim),
        Call::Settle {
            version,
            settlement,
            live,
        } => settle::settle(state, now, *version, settlement, *live),
    }
}

const APPLIED: Reply = Reply::Fenced(Fenced::Applied);

/// Clause 16: the step is written over one of the same name, and the lease starts anew.
fn record_step(state: &State, now: Time, claim: &Claim, (name, step): (&String, &Bytes)) -> (State, Reply) {
    match state {
        State::Claimed { claim: held, steps, .. } if held.token == claim.token => {
            let mut steps = steps.clone();
            steps.insert(name.clone(), step.clone());
            (State::claimed(held, steps, now), APPLIED)
        }
        _ => superseded(state),
    }
}

/// Clause 18: the attempt ends, lapsed or not, and its steps are kept for `ttl` from now on.
fn park(state: &State, now: Time, claim: &Claim) -> (State, Reply) {
    match state {
        State::Claimed { claim: held, steps, .. } if held.token == claim.token => {
            if steps.is_empty() {
                return (State::Absent, APPLIED);
            }
            let parked = State::Parked {
                claim: held.clone(),
                expires: now.after(held.ttl),
                steps: steps.clone(),
            };
            (parked, APPLIED)
        }
        // Repeated, it is applied, and it does not prolong the record.
        State::Parked { claim: held, .. } if held.token == claim.token => (state.clone(), APPLIED),
        _ => superseded(state),
    }
}

/// A claim, or the takeover of the claim `lapsed`.
fn acquire(state: &State, now: Time, claim: &Claim, lapsed: Option<&Claim>) -> (State, Reply) {
    let ownerless = || state.ownerless_steps(lapsed?, now);
    match state.record(now) {
        // Clause 1. Clause 5: where nothing is stored any more, a takeover claims.
        None => (State::claimed(claim, Steps::new(), now), Reply::Acquired),
        // Clause 3, for a takeover as well. The lease runs on from the first call.
        Some(_) if state.is_claim_of(claim.token) => (state.clone(), Reply::Acquired),
        Some(record) => match ownerless() {
            // Clauses 5 and 19: the steps are kept.
            Some(steps) => (State::claimed(claim, steps.clone(), now), Reply::Acquired),
            // Clauses 2 and 5: nothing is changed.
            None => (state.clone(), Reply::Existing(record)),
        },
    }
}

/// Clause 7: the completion stays for `ttl` from now on.
fn complete(state: &State, now: Time, claim: &Claim, completion: &Completion, ttl: Duration) -> (State, Reply) {
    match state {
        State::Claimed { claim: held, .. } if held.token == claim.token => {
            let completed = State::Completed {
                claim: held.clone(),
                completion: completion.clone(),
                expires: now.after(ttl),
            };
            (completed, APPLIED)
        }
        // Clause 7: repeated, it is applied, and it neither changes nor prolongs the outcome.
        completed if completed.is_completion_of(claim.token) => (completed.clone(), APPLIED),
        _ => superseded(state),
    }
}

/// Clause 9: the token is not the one in place, so nothing is changed.
fn superseded(state: &State) -> (State, Reply) {
    (state.clone(), Reply::Fenced(Fenced::Superseded))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
