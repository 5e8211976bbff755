//! The search for an order of the calls that the specification explains.
//!
//! Owns which call may come next. This is the search of Wing and Gong, with Lowe's memory of the positions that led nowhere.

use std::collections::HashMap;

use super::frame::{Situation, Span};
use super::operations::{Action, Moment, NEVER, Operation};
use super::{Call, Reply};
use crate::Token;
use crate::inspect::Settled;

/// What the search found out about one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Explained,
    Unexplained,
    /// There were too many orders to try.
    GivenUp,
}

/// Some of the operations, one bit each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Done(Box<[u64]>);

impl Done {
    fn none_of(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)].into())
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }

    fn insert(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn is_subset_of(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(mine, others)| mine & !others == 0)
    }
}

/// What took effect so far, and what it has led to.
#[derive(Clone, Debug)]
struct Position {
    /// The calls with a reply, and the losses.
    done: Done,
    /// The open calls. They need not take effect, so fewer of them are as good.
    open: Done,
    /// How many of the calls with a reply are done without a gap, in the order of their beginnings.
    first: usize,
    /// The latest beginning of anything that has taken effect.
    began: Moment,
    situation: Situation,
    /// The situations before, where a loss may bring them back.
    before: Vec<Situation>,
}

impl Position {
    /// Whether everything that explains the rest from `other` also explains it from `self`. Both have done the same, but for open
    /// calls.
    fn covers(&self, other: &Self) -> bool {
        self.situation.covers(&other.situation) && self.open.is_subset_of(&other.open) && self.before == other.before
    }
}

/// What of a position is still to be tried.
enum Untried {
    Everything(Position),
    /// That an open call takes effect next, or a loss.
    Uncertain(Position),
}

/// Looks for an order of the operations, which are sorted by their beginnings, and tries at most so many positions.
pub(super) fn explain(operations: &[Operation], steps: usize) -> Verdict {
    let search = Search::new(operations);
    let mut untried = vec![Untried::Everything(search.start())];
    let mut seen: HashMap<Done, Vec<Position>> = HashMap::new();
    for _ in 0..steps {
        let position = match untried.pop() {
            None => return Verdict::Unexplained,
            Some(Untried::Uncertain(position)) => {
                let next = search.next_uncertain(&position).into_iter().rev();
                untried.extend(next.map(Untried::Everything));
                continue;
            }
            Some(Untried::Everything(position)) => position,
        };
        let alike = seen.entry(position.done.clone()).or_default();
        if alike.iter().any(|seen| seen.covers(&position)) {
            continue;
        }
        alike.push(position.clone());
        match search.next_certain(&position) {
            Next::Explained => return Verdict::Explained,
            Next::Only(next) => untried.push(Untried::Everything(*next)),
            Next::AnyOf(next) => {
                untried.push(Untried::Uncertain(position));
                untried.extend(next.into_iter().rev().map(Untried::Everything));
            }
        }
    }
    Verdict::GivenUp
}

/// The positions after one more call with a reply.
enum Next {
    /// No reply is left to explain.
    Explained,
    /// If any order explains the rest, one does that begins here.
    Only(Box<Position>),
    /// The most promising first.
    AnyOf(Vec<Position>),
}

struct Search<'a> {
    operations: &'a [Operation],
    /// The calls with a reply, in the order of their beginnings.
    certain: Vec<usize>,
    /// Open calls and losses, each with the open call before it that asks for the same.
    uncertain: Vec<(usize, Option<usize>)>,
    goes_back: bool,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation]) -> Self {
        let (certain, uncertain) = (0..operations.len()).partition(|at| operations[*at].is_certain());
        let goes_back = |operation: &Operation| matches!(operation.action, Action::Loss { goes_back: true });
        Self {
            operations,
            certain,
            uncertain: with_same_before(operations, uncertain),
            goes_back: operations.iter().any(goes_back),
        }
    }

    fn start(&self) -> Position {
        Position {
            done: Done::none_of(self.operations.len()),
            open: Done::none_of(self.operations.len()),
            first: 0,
            began: -NEVER,
            situation: Situation::ABSENT,
            before: Vec::new(),
        }
    }

    /// The calls with a reply that may be next, and the earliest return of any that is left.
    ///
    /// What begins after a call has returned comes after that call. So whatever is next takes effect before that return.
    fn certain_left(&self, position: &Position) -> (Vec<usize>, Moment) {
        let mut bound = NEVER;
        let mut left = Vec::new();
        for at in &self.certain[position.first..] {
            let operation = &self.operations[*at];
            if operation.from > bound {
                break;
            }
            if !position.done.has(*at) {
                bound = bound.min(operation.until);
                left.push(*at);
            }
        }
        left.retain(|at| self.operations[*at].from <= bound);
        left.sort_by_key(|at| self.operations[*at].until);
        (left, bound)
    }

    fn next_certain(&self, position: &Position) -> Next {
        let (left, bound) = self.certain_left(position);
        if left.is_empty() {
            return Next::Explained;
        }
        let mut next = Vec::new();
        for at in left {
            let operation = &self.operations[at];
            let situations = after(operation, bound, position);
            let is_free = situations.contains(&position.situation) && changes_nothing(operation);
            if is_free && !self.outlasts_a_loss(operation, position) {
                // Whatever explains the rest with this call at a later place also explains it with this call here.
                let moved = self.moved(position, at, position.situation.clone());
                return Next::Only(Box::new(moved));
            }
            let moved = |situation| self.moved(position, at, situation);
            next.extend(situations.into_iter().map(moved));
        }
        Next::AnyOf(next)
    }

    fn next_uncertain(&self, position: &Position) -> Vec<Position> {
        let (_, bound) = self.certain_left(position);
        let mut next = Vec::new();
        for (at, same) in &self.uncertain {
            let operation = &self.operations[*at];
            if operation.from > bound {
                break;
            }
            // Of open calls that ask for the same, the one that began first may do whatever the others may do.
            let is_second = same.is_some_and(|same| !position.open.has(same));
            let is_done = position.open.has(*at) || position.done.has(*at);
            // A loss that ended before something began that has taken effect.
            let is_too_late = !operation.is_call() && operation.until < position.began;
            if !is_done && !is_second && !is_too_late {
                let moved = |situation| self.moved(position, *at, situation);
                next.extend(after(operation, bound, position).into_iter().map(moved));
            }
        }
        next
    }

    fn moved(&self, position: &Position, at: usize, situation: Situation) -> Position {
        let mut moved = Position {
            situation,
            began: position.began.max(self.operations[at].from),
            ..position.clone()
        };
        if self.goes_back && !moved.before.contains(&position.situation) {
            moved.before.push(position.situation.clone());
        }
        if self.operations[at].is_open() {
            moved.open.insert(at);
        } else {
            moved.done.insert(at);
        }
        let ahead = &self.certain[moved.first..];
        moved.first += ahead.iter().take_while(|at| moved.done.has(**at)).count();
        moved
    }

    /// Whether a loss could no longer happen once this operation has taken effect.
    fn outlasts_a_loss(&self, operation: &Operation, position: &Position) -> bool {
        self.uncertain.iter().any(|(at, _)| {
            let loss = &self.operations[*at];
            !loss.is_call() && !position.done.has(*at) && loss.until < operation.from
        })
    }
}

/// Each operation with the open call before it that asks for the same, if there is one.
fn with_same_before(operations: &[Operation], uncertain: Vec<usize>) -> Vec<(usize, Option<usize>)> {
    let mut by_token: HashMap<Token, Vec<usize>> = HashMap::new();
    let mut with = Vec::new();
    for at in uncertain {
        let mut before = None;
        if let Action::Call { call, .. } = &operations[at].action
            && let Some(claim) = call.claim()
        {
            let asks_the_same = |other: &&usize| matches!(&operations[**other].action, Action::Call { call: other, .. } if other == call);
            let others = by_token.entry(claim.token).or_default();
            before = others.iter().rev().find(asks_the_same).copied();
            others.push(at);
        }
        with.push((at, before));
    }
    with
}

/// Each situation after the operation, if it takes effect before `bound`.
fn after(operation: &Operation, bound: Moment, position: &Position) -> Vec<Situation> {
    let situation = &position.situation;
    let span = Span::of(operation.from, operation.until.min(bound));
    match &operation.action {
        Action::Call {
            call,
            reply: Some(reply),
            ..
        } => situation.after(call, span, Some(reply)),
        Action::Call { call, reply: None, .. } => {
            if is_in_vain(call, situation, span) {
                return Vec::new();
            }
            let mut after = situation.after(call, span, None);
            // An open call that changes nothing need not take effect. One that begins a lease anew always changes it.
            after.retain(|after| !situation.covers(after));
            after
        }
        Action::Loss { goes_back } => {
            let gone = (!situation.is_absent()).then(|| situation.lost(span));
            let before = position.before.iter().filter(|_| *goes_back);
            gone.into_iter().chain(before.cloned()).collect()
        }
    }
}

/// Whether an open call within `span` cannot change the state.
fn is_in_vain(call: &Call, situation: &Situation, span: Span) -> bool {
    match call {
        Call::Claim(_) => !situation.may_be_gone(span),
        Call::TakeOver { lapsed, .. } => !situation.may_be_gone(span) && !situation.may_be_ownerless(lapsed, span),
        Call::Renew(claim)
        | Call::Complete { claim, .. }
        | Call::Release(claim)
        | Call::RecordStep { claim, .. }
        | Call::Park(claim) => !situation.is_owned_by(claim.token),
        Call::Settle { version, .. } => !situation.is_at(*version),
        Call::Read | Call::ReadSteps(_) => true,
    }
}

/// Whether the reply says that the call has changed nothing.
pub(super) fn changes_nothing(operation: &Operation) -> bool {
    use crate::Fenced::Superseded;
    match &operation.action {
        Action::Call { reply: Some(reply), .. } => match reply {
            Reply::Existing(_)
            | Reply::Found(_)
            | Reply::Steps(_)
            | Reply::Fenced(Superseded)
            | Reply::Settled(Settled::Changed | Settled::Live(_)) => true,
            Reply::Acquired | Reply::Fenced(_) | Reply::Settled(_) => false,
        },
        _ => false,
    }
}
