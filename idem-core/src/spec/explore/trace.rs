//! The shortest way to a broken rule, as a text.
//!
//! Owns the words for each event. The search knows worlds up to the names of equal requests; the way is walked again here with
//! the names that they had at its start.

use std::fmt;

use super::moves::{Event, Moved, happen, possible};
use super::setting::{Outcome, Setting};
use super::subject::Subject;
use super::truth::Violation;
use super::world::{Answer, ClaimOf, Kept, Message, Request, Seen, World};

/// A broken rule, and the events that lead to it.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// The rule.
    pub violation: Violation,
    /// The setting under which it was found.
    pub setting: &'static str,
    /// One line for each event.
    pub events: Vec<String>,
}

impl Counterexample {
    /// Walks the `way`, and takes the event that breaks a rule in its last world.
    pub(super) fn new(way: &[World], setting: &Setting, subject: &Subject) -> Self {
        let mut world = World::new(setting);
        let mut lines = Vec::new();
        for next in way.iter().skip(1) {
            let leads = |moved: &Moved| moved.violation.is_none() && moved.world.canonical(setting) == *next;
            if let Some((event, moved)) = find(&world, setting, subject, leads) {
                lines.push(line(&world, event, &moved));
                world = moved.world;
            }
        }
        let mut violation = Violation {
            rule: "none",
            what: "the way cannot be walked again",
        };
        if let Some((event, moved)) = find(&world, setting, subject, |moved| moved.violation.is_some()) {
            lines.push(line(&world, event, &moved));
            violation = moved.violation.unwrap_or(violation);
        }
        Self {
            violation,
            setting: setting.name,
            events: lines,
        }
    }
}

/// The first event in `world` whose result is meant.
fn find(
    world: &World,
    setting: &Setting,
    subject: &Subject,
    is_meant: impl Fn(&Moved) -> bool,
) -> Option<(Event, Moved)> {
    let mut events = Vec::new();
    possible(world, setting, subject, &mut events);
    let mut moves = events
        .into_iter()
        .map(|event| (event, happen(world, event, setting, subject)));
    moves.find(|(_, moved)| is_meant(moved))
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, event) in (1..).zip(&self.events) {
            writeln!(f, "  {number:>2}. {event}")?;
        }
        write!(f, "  breaks {}: {}", self.violation.rule, self.violation.what)
    }
}

fn line(world: &World, event: Event, moved: &Moved) -> String {
    let what = match event {
        Event::Tick => "a tick passes".to_owned(),
        Event::Read => "somebody reads".to_owned(),
        Event::Invoke(at) => format!("{} comes, and asks for its claim", name(at)),
        Event::Arrive(at) => format!("the call of {} arrives", name(at)),
        Event::ReplyLost(at) => format!("the reply to {} is lost", name(at)),
        Event::Late(at) => format!("the call of {} is late; it makes the call again", name(at)),
        Event::LateArrives => "the late call arrives".to_owned(),
        Event::RollBack(at) => format!("the transaction of {} is rolled back", name(at)),
        Event::GiveUp(at) => format!("{} is given up before it has a reply", name(at)),
        Event::Start(at) => format!("the handler of {} starts", name(at)),
        Event::HangUp(at) => format!("the client of {} leaves", name(at)),
        Event::Decide(at) => format!("{} decides on {}", name(at), reply_to(world, at)),
        Event::Renew(at) => format!("{} renews", name(at)),
        Event::RenewLate(at) => format!("the renewal of {} is late", name(at)),
        Event::End(at, outcome) => format!("the handler of {} ends: {}", name(at), words_for(outcome)),
        Event::Crash(at) => format!("the process of {} crashes", name(at)),
    };
    match moved.call {
        Some((message, answer)) => format!("{what}: {message} -> {answer}"),
        None => what,
    }
}

/// The reply that a request has.
fn reply_to(world: &World, at: u8) -> String {
    match world.requests[usize::from(at)] {
        Request::Asking { reply: Some(reply), .. } => reply.to_string(),
        _ => "nothing".to_owned(),
    }
}

fn name(request: u8) -> char {
    char::from(b'A' + request)
}

fn words_for(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Keep => "its answer is to be kept",
        Outcome::KeepFor => "its answer is to be kept for a short time",
        Outcome::Commit => "its transaction is to keep its answer",
        Outcome::NotStored => "its answer cannot be stored",
        Outcome::Unknown => "its outcome is unknown",
        Outcome::Release => "its claim is to be released",
    }
}

impl fmt::Display for ClaimOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, attempt {}", name(self.request), self.attempt)
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(claim) => write!(f, "claim({claim})"),
            Self::TakeOver { lapsed, claim } => write!(f, "take_over({lapsed}, by {claim})"),
            Self::Renew(claim) => write!(f, "renew({claim})"),
            Self::Complete(claim, outcome) => {
                write!(
                    f,
                    "complete({claim}, {} for {} ticks)",
                    outcome.kept(claim.request),
                    outcome.ttl()
                )
            }
            Self::Release(claim, _) => write!(f, "release({claim})"),
            Self::Read => f.write_str("read"),
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(of) => write!(f, "the answer of {}", name(*of)),
            Self::Nothing => f.write_str("not stored"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claimed { claim, has_lapsed } => {
                let lease = if *has_lapsed { "lapsed" } else { "held" };
                write!(f, "claimed by {claim}, {lease}")
            }
            Self::Completed { kept, .. } => write!(f, "completed: {kept}"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acquired => f.write_str("acquired"),
            Self::Existing(record) => write!(f, "existing ({record})"),
            Self::Applied => f.write_str("applied"),
            Self::Superseded => f.write_str("superseded"),
            Self::Found(None) => f.write_str("nothing"),
            Self::Found(Some(record)) => write!(f, "found ({record})"),
        }
    }
}
