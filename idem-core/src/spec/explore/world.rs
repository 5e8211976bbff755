//! The small world: one record, three requests, one message that is late, and what has really happened.
//!
//! Owns the states, how time passes in them, and which worlds are the same but for the names of requests. Does not own what
//! happens: [`moves`](super::moves). Does not own the types of the contract: [`translate`](super::translate).

use super::setting::{Outcome, Setting};
use super::truth::Truth;

/// How many requests there are. Each has one claim, under one token.
pub(super) const REQUESTS: usize = 3;

/// One state of everything. Times are ticks that are left, and ages are ticks that have passed, so that worlds at different
/// times are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct World {
    /// The state of the store, as the function under exploration has left it.
    pub(super) stored: Stored,
    /// The state that the replies so far imply.
    pub(super) truth: Truth,
    pub(super) requests: [Request; REQUESTS],
    /// A message that its sender has given up, and that may still arrive.
    pub(super) late: Option<Message>,
    /// How many more faults may happen.
    pub(super) faults: u8,
}

/// A claim: the request that makes it, and what differs between its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ClaimOf {
    pub(super) request: u8,
    pub(super) attempt: u8,
    /// The ticks since `began_at`.
    pub(super) age: u8,
}

/// A compact [`State`](crate::spec::State).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Stored {
    Absent,
    Claimed { claim: ClaimOf, lapses: u8, expires: u8 },
    Completed { owner: u8, kept: Kept, expires: u8 },
}

/// A compact [`Completion`](crate::Completion).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kept {
    /// The answer of this request's handler.
    Answer(u8),
    Nothing,
    Unknown,
}

/// A compact [`Record`](crate::Record): of a lease that is left, only that some is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Seen {
    Claimed {
        claim: ClaimOf,
        has_lapsed: bool,
    },
    /// A completion with the fingerprint of the request `like`, the first one that has it.
    Completed {
        like: u8,
        kept: Kept,
    },
}

/// A call on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Message {
    Claim(ClaimOf),
    TakeOver { lapsed: ClaimOf, claim: ClaimOf },
    Renew(ClaimOf),
    Complete(ClaimOf, Outcome),
    Release(ClaimOf, Reason),
    Read,
}

/// Why a claim is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reason {
    /// Its handler has not started.
    NotStarted,
    /// Its handler has ended so.
    Outcome,
    /// None that the promise allows: its handler runs, or has another outcome.
    None,
}

/// A compact [`Reply`](crate::spec::Reply).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Answer {
    Acquired,
    Existing(Seen),
    Applied,
    Superseded,
    Found(Option<Seen>),
}

/// How far a request is, and the process that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Request {
    /// It has not come yet.
    Idle,
    /// A claiming call is made, for the second time if `again`. `reply` is on its way back.
    Asking {
        call: Message,
        again: bool,
        reply: Option<Answer>,
    },
    /// Its handler runs.
    Running(ClaimOf),
    /// Its handler has ended, and the call that says so is made until it succeeds.
    Ending(Message),
    /// It is answered, refused or given up, or its process has crashed.
    Gone,
}

impl World {
    pub(super) fn new(setting: &Setting) -> Self {
        Self {
            stored: Stored::Absent,
            truth: Truth::Absent,
            requests: [Request::Idle; REQUESTS],
            late: None,
            faults: setting.faults,
        }
    }

    /// The world one tick later.
    pub(super) fn tick(mut self, setting: &Setting) -> Self {
        let oldest = setting.oldest();
        self.each_claim(|claim| claim.age = (claim.age + 1).min(oldest));
        self.truth = self.truth.tick();
        self.stored = match self.stored {
            Stored::Claimed { expires: ..=1, .. } | Stored::Completed { expires: ..=1, .. } | Stored::Absent => {
                Stored::Absent
            }
            Stored::Claimed { claim, lapses, expires } => Stored::Claimed {
                claim,
                lapses: lapses.saturating_sub(1),
                expires: expires - 1,
            },
            Stored::Completed { owner, kept, expires } => Stored::Completed {
                owner,
                kept,
                expires: expires - 1,
            },
        };
        self
    }

    /// The representative of all worlds that differ from this one only by the names of equal requests.
    pub(super) fn canonical(&self, setting: &Setting) -> Self {
        let renamed = setting.renamings().iter().map(|names| self.renamed(*names));
        renamed.min().unwrap_or(*self)
    }

    /// The world in which request `n` is called `names[n]`.
    pub(super) fn renamed(&self, names: [u8; REQUESTS]) -> Self {
        let mut world = *self;
        for (request, name) in self.requests.iter().zip(names) {
            world.requests[usize::from(name)] = *request;
        }
        world.each_claim(|claim| claim.request = names[usize::from(claim.request)]);
        world.each_owner(|owner| *owner = names[usize::from(*owner)]);
        world
    }

    /// Changes every claim in the world.
    fn each_claim(&mut self, mut change: impl FnMut(&mut ClaimOf)) {
        if let Stored::Claimed { claim, .. } = &mut self.stored {
            change(claim);
        }
        if let Truth::Claimed { claim, .. } = &mut self.truth {
            change(claim);
        }
        for request in &mut self.requests {
            match request {
                Request::Asking { call, reply, .. } => {
                    call.each_claim(&mut change);
                    if let Some(Answer::Existing(Seen::Claimed { claim, .. })) = reply {
                        change(claim);
                    }
                }
                Request::Running(claim) => change(claim),
                Request::Ending(call) => call.each_claim(&mut change),
                Request::Idle | Request::Gone => {}
            }
        }
        if let Some(late) = &mut self.late {
            late.each_claim(&mut change);
        }
    }

    /// Changes every mention of a request outside of a claim. A record that was seen mentions one only by its answer: its
    /// fingerprint is the same under each name.
    fn each_owner(&mut self, mut change: impl FnMut(&mut u8)) {
        if let Stored::Completed { owner, kept, .. } = &mut self.stored {
            change(owner);
            kept.each_owner(&mut change);
        }
        if let Truth::Completed { owner, kept, .. } = &mut self.truth {
            change(owner);
            kept.each_owner(&mut change);
        }
        for request in &mut self.requests {
            if let Request::Asking {
                reply: Some(Answer::Existing(Seen::Completed { kept, .. })),
                ..
            } = request
            {
                kept.each_owner(&mut change);
            }
        }
    }
}

impl Kept {
    fn each_owner(&mut self, mut change: impl FnMut(&mut u8)) {
        if let Self::Answer(of) = self {
            change(of);
        }
    }
}

impl Message {
    /// The claim that the caller makes or owns; `None` for a read.
    pub(super) fn claim(self) -> Option<ClaimOf> {
        match self {
            Self::Claim(claim)
            | Self::TakeOver { claim, .. }
            | Self::Renew(claim)
            | Self::Complete(claim, _)
            | Self::Release(claim, _) => Some(claim),
            Self::Read => None,
        }
    }

    fn each_claim(&mut self, mut change: impl FnMut(&mut ClaimOf)) {
        match self {
            Self::TakeOver { lapsed, claim } => {
                change(lapsed);
                change(claim);
            }
            Self::Claim(claim) | Self::Renew(claim) | Self::Complete(claim, _) | Self::Release(claim, _) => {
                change(claim);
            }
            Self::Read => {}
        }
    }
}
