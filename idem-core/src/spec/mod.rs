//! The contract of [`Backend`](crate::Backend) as one pure function, [`step`].
//!
//! Owns the meaning of clauses 1 to 10, 12 and 15 for a single key: which state a call leaves, and which reply it gets. Owns
//! no store and no clock: the caller passes the state and the time. Each rule in [`step`] cites its clause.
//!
//! Does not own three clauses, because they are not about the state of a readable record:
//!
//! - Clause 11, unreadable records: [`State`] has no unreadable state. The conformance kit tests the clause.
//! - Clause 13, notifications: the conformance kit tests them.
//! - Clause 14, `check`: it changes no record and has no part in the state.
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

pub mod explore;
pub mod history;
#[cfg(test)]
mod tests;

use std::time::Duration;

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
}

impl Call {
    /// The claim that the caller makes or owns; `None` for a read.
    #[must_use]
    pub fn claim(&self) -> Option<&Claim> {
        match self {
            Self::Claim(claim)
            | Self::TakeOver { claim, .. }
            | Self::Renew(claim)
            | Self::Complete { claim, .. }
            | Self::Release(claim) => Some(claim),
            Self::Read => None,
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
    /// To a renewal, a completion or a release.
    Fenced(Fenced),
    /// To a read: what is under the key.
    Found(Option<Record>),
}

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
    fn claimed(claim: &Claim, now: Time) -> Self {
        let lapses = now.after(claim.lease);
        let expires = lapses.after(claim.ttl);
        let claim = claim.clone();
        Self::Claimed { claim, lapses, expires }
    }

    /// What is left of the state at `now`: clauses 4 and 7 say when a record is gone.
    #[must_use]
    pub fn at(&self, now: Time) -> &Self {
        match self {
            Self::Claimed { expires, .. } | Self::Completed { expires, .. } if *expires <= now => &Self::Absent,
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
            Self::Completed { claim, completion, .. } => Some(Record::Completed {
                fingerprint: claim.fingerprint,
                completion: completion.clone(),
            }),
        }
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

    /// Whether exactly the claim `lapsed` is in place and its lease has lapsed.
    fn is_lapsed_claim(&self, lapsed: &Claim, now: Time) -> bool {
        matches!(self, Self::Claimed { claim, lapses, .. } if claim == lapsed && *lapses <= now)
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
            State::Claimed { claim: held, .. } if held.token == claim.token => {
                (State::claimed(held, now), Reply::Fenced(Fenced::Applied))
            }
            _ => superseded(state),
        },
        Call::Complete { claim, completion, ttl } => complete(state, now, claim, completion, *ttl),
        // Clause 8: the claim is gone, lapsed or not, as if it had never been made.
        Call::Release(claim) if state.is_claim_of(claim.token) => (State::Absent, Reply::Fenced(Fenced::Applied)),
        Call::Release(_) => superseded(state),
        // Clause 15: a read changes nothing.
        Call::Read => (state.clone(), Reply::Found(state.record(now))),
    }
}

/// A claim, or the takeover of the claim `lapsed`.
fn acquire(state: &State, now: Time, claim: &Claim, lapsed: Option<&Claim>) -> (State, Reply) {
    match state.record(now) {
        // Clause 1. Clause 5: where nothing is stored any more, a takeover claims.
        None => (State::claimed(claim, now), Reply::Acquired),
        // Clause 3, for a takeover as well. The lease runs on from the first call.
        Some(_) if state.is_claim_of(claim.token) => (state.clone(), Reply::Acquired),
        // Clause 5.
        Some(_) if lapsed.is_some_and(|lapsed| state.is_lapsed_claim(lapsed, now)) => {
            (State::claimed(claim, now), Reply::Acquired)
        }
        // Clauses 2 and 5: nothing is changed.
        Some(record) => (state.clone(), Reply::Existing(record)),
    }
}

/// Clause 7: the completion stays for `ttl` from now on.
fn complete(state: &State, now: Time, claim: &Claim, completion: &Completion, ttl: Duration) -> (State, Reply) {
    let applied = Reply::Fenced(Fenced::Applied);
    match state {
        State::Claimed { claim: held, .. } if held.token == claim.token => {
            let completed = State::Completed {
                claim: held.clone(),
                completion: completion.clone(),
                expires: now.after(ttl),
            };
            (completed, applied)
        }
        // Clause 7: repeated, it is applied, and it neither changes nor prolongs the outcome.
        completed if completed.is_completion_of(claim.token) => (completed.clone(), applied),
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
