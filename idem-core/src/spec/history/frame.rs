//! The state of a key whose times are known only roughly, and what a call makes of it.
//!
//! Owns all arithmetic of times. The moment at which a store reads its clock lies anywhere between the beginning and the return
//! of a call, so the search keeps two things apart: a state as if it were written at [`ORIGIN`], and the span of moments in which
//! it was written. A reply that needs a lease to have lapsed, or not, narrows the span.

use std::time::Duration;

use super::operations::{Moment, NEVER, moment};
use super::{Call, Reply, TOLERANCE};
use crate::inspect::{RecordVersion, Settled};
use crate::spec::{State, Time, step};
use crate::{Claim, Record, Token};

/// When every state was written, on the clock of its own frame.
const ORIGIN: Time = Time(1 << 44);

/// The longest time between the moment at which a store reads its clock for a call and the moment at which the call takes effect. A
/// statement in Postgres may wait in between, for a lock or for its commit.
const LATE: Duration = Duration::from_secs(10);

const ALWAYS: Span = Span {
    from: -NEVER,
    until: NEVER,
};

/// A span of moments, with both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: Moment,
    pub(super) until: Moment,
}

impl Span {
    /// The span in which the store may have read its clock, for a call that began and returned then.
    pub(super) fn of(from: Moment, until: Moment) -> Self {
        let tolerance = moment(TOLERANCE);
        Self {
            from: from - tolerance,
            until: until.min(NEVER) + tolerance,
        }
    }

    fn meet(self, from: Moment, until: Moment) -> Option<Self> {
        let (from, until) = (self.from.max(from), self.until.min(until));
        (from <= until).then_some(Self { from, until })
    }

    fn contains(self, other: Self) -> bool {
        self.from <= other.from && other.until <= self.until
    }
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Situation {
    /// As if it were written at [`ORIGIN`].
    state: State,
    /// When the store read its clock to write it.
    written: Span,
    /// The earliest moment at which it can have taken effect.
    since: Moment,
}

impl Situation {
    pub(super) const ABSENT: Self = Self {
        state: State::Absent,
        written: ALWAYS,
        since: -NEVER,
    };

    /// What is known once `state` was written at `at` of its own clock, which was in the span `written`.
    fn then(&self, state: State, at: Time, written: Span) -> Self {
        let since = self.since.max(written.from);
        match moved(state, at) {
            State::Absent => Self { since, ..Self::ABSENT },
            state => Self { state, written, since },
        }
    }

    /// What is known once the store has lost the record within `span`.
    pub(super) fn lost(&self, span: Span) -> Self {
        self.then(State::Absent, ORIGIN, span)
    }

    pub(super) fn is_absent(&self) -> bool {
        self.state == State::Absent
    }

    /// Whether everything that explains from `other` also explains from `self`.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.since <= other.since && self.written.contains(other.written) && self.state == other.state
    }

    /// Whether an open call of the owner of `token` could change the state.
    pub(super) fn is_owned_by(&self, token: Token) -> bool {
        matches!(&self.state, State::Claimed { claim, .. } if claim.token == token)
    }

    /// Whether an open call of an operator who has seen this `version` could change the state.
    pub(super) fn is_at(&self, version: RecordVersion) -> bool {
        self.state.version() == Some(version)
    }

    /// Whether nothing is there any more at the end of `span`, at the latest.
    pub(super) fn may_be_gone(&self, span: Span) -> bool {
        match self.state {
            State::Absent => true,
            State::Claimed { expires, .. } | State::Parked { expires, .. } | State::Completed { expires, .. } => {
                self.may_be_past(expires, span)
            }
        }
    }

    /// Whether the claim `lapsed` is in place and may have no owner at the end of `span`: it may have lapsed, or it is parked.
    pub(super) fn may_be_ownerless(&self, lapsed: &Claim, span: Span) -> bool {
        match &self.state {
            State::Claimed { claim, lapses, .. } => claim.token == lapsed.token && self.may_be_past(*lapses, span),
            State::Parked { claim, .. } => claim.token == lapsed.token,
            _ => false,
        }
    }

    fn may_be_past(&self, time: Time, span: Span) -> bool {
        self.written.from + since_origin(time) <= span.until
    }

    /// The moments, after the state was written, from which on it is seen differently.
    fn turns(&self) -> Vec<Time> {
        match self.state {
            State::Absent => Vec::new(),
            State::Claimed { lapses, expires, .. } => vec![lapses, expires],
            State::Parked { expires, .. } | State::Completed { expires, .. } => vec![expires],
        }
    }

    /// Each situation after a call that was made within `span`, if it gives the `reply`. An open call gives any reply.
    pub(super) fn after(&self, call: &Call, span: Span, reply: Option<&Reply>) -> Vec<Self> {
        // The state was written before this call took effect, thus before it returned.
        let (Some(written), true) = (self.written.meet(-NEVER, span.until), self.since <= span.until) else {
            return Vec::new();
        };
        let span = Span {
            from: span.from.max(self.since - moment(LATE)),
            ..span
        };
        let mut after = Vec::new();
        let mut begins = -NEVER;
        let mut seen_at = Time(ORIGIN.0 - 1);
        let turns = self.turns();
        for turn in turns.iter().map(|turn| Some(*turn)).chain([None]) {
            let ends = turn.map_or(NEVER, |turn| since_origin(turn) - 1);
            let age = Age {
                from: begins,
                until: ends,
            };
            after.extend(self.seen(age, seen_at, written, call, span, reply));
            if let Some(turn) = turn {
                begins = since_origin(turn);
                seen_at = turn;
            }
        }
        after
    }

    /// The situation after the call if the state was of this `age` then, which is seen as at the time `at`.
    fn seen(&self, age: Age, at: Time, written: Span, call: &Call, span: Span, reply: Option<&Reply>) -> Option<Self> {
        let (state, expected) = step(&self.state, at, call);
        let (state, age) = match reply {
            None => (state, age),
            Some(reply) if agree(&expected, reply) => (state, self.old_enough(age, reply)?),
            Some(reply) if self.is_refused_late(at, call, reply) => (self.state.clone(), age),
            Some(_) => return None,
        };
        // The age is the call's moment less the moment at which the state was written.
        let narrowed = written.meet(span.from - age.until, span.until - age.from)?;
        let moments = span.meet(written.from + age.from, written.until + age.until)?;
        if self.is_absent() {
            let is_unchanged = state == State::Absent;
            return Some(if is_unchanged {
                self.clone()
            } else {
                self.then(state, at, span)
            });
        }
        if state == self.state {
            let since = self.since;
            return Some(Self {
                state,
                written: narrowed,
                since,
            });
        }
        Some(self.then(state, at, moments))
    }

    /// The part of `age` at which no less of the lease is left than the `reply` says.
    fn old_enough(&self, age: Age, reply: &Reply) -> Option<Age> {
        let (State::Claimed { lapses, .. }, Some(remaining)) = (&self.state, remaining(reply)) else {
            return Some(age);
        };
        if remaining.is_zero() {
            return Some(age);
        }
        let latest = since_origin(*lapses) - moment(remaining) + moment(TOLERANCE);
        (age.from <= latest).then_some(Age {
            until: age.until.min(latest),
            ..age
        })
    }

    /// Whether the reply is that of a takeover which came too early, and whose store has read the record once the lease had
    /// lapsed. No contract can forbid that: the caller may look at any time.
    fn is_refused_late(&self, at: Time, call: &Call, reply: &Reply) -> bool {
        let (Call::TakeOver { lapsed, .. }, Reply::Existing(found)) = (call, reply) else {
            return false;
        };
        let Some(record) = self.state.record(at) else {
            return false;
        };
        matches!(&record, Record::Claimed { claim, remaining } if claim == lapsed && remaining.is_zero())
            && record == *found
    }
}

/// How long ago a state was written.
#[derive(Clone, Copy, Debug)]
struct Age {
    from: Moment,
    until: Moment,
}

fn since_origin(time: Time) -> Moment {
    let milliseconds = i64::try_from(time.0).unwrap_or(i64::MAX) - i64::try_from(ORIGIN.0).unwrap_or(0);
    milliseconds.saturating_mul(1_000).min(NEVER - 1)
}

/// The state that was written at `at`, as if it were written at [`ORIGIN`].
fn moved(mut state: State, at: Time) -> State {
    let moved = |time: Time| Time((time.0 + ORIGIN.0).saturating_sub(at.0));
    match &mut state {
        State::Absent => {}
        State::Claimed { lapses, expires, .. } => (*lapses, *expires) = (moved(*lapses), moved(*expires)),
        State::Parked { expires, .. } | State::Completed { expires, .. } => *expires = moved(*expires),
    }
    state
}

fn remaining(reply: &Reply) -> Option<Duration> {
    match reply {
        Reply::Existing(Record::Claimed { remaining, .. }) | Reply::Found(Some(Record::Claimed { remaining, .. })) => {
            Some(*remaining)
        }
        Reply::Settled(Settled::Live(remaining)) => Some(*remaining),
        _ => None,
    }
}

/// Whether two replies are the same but for the rest of a lease. A rest of zero means that the lease has lapsed.
fn agree(expected: &Reply, recorded: &Reply) -> bool {
    let same = |one: &Record, other: &Record| match (one, other) {
        (
            Record::Claimed {
                claim: one,
                remaining: left,
            },
            Record::Claimed { claim, remaining },
        ) => one == claim && left.is_zero() == remaining.is_zero(),
        _ => one == other,
    };
    match (expected, recorded) {
        (Reply::Existing(one), Reply::Existing(other)) | (Reply::Found(Some(one)), Reply::Found(Some(other))) => {
            same(one, other)
        }
        (Reply::Settled(Settled::Live(one)), Reply::Settled(Settled::Live(other))) => one.is_zero() == other.is_zero(),
        _ => expected == recorded,
    }
}
