//! What a check has found, and how an unexplained history is printed.

use std::collections::HashMap;
use std::fmt;

use super::operations::{Action, Moment, NEVER, Operation};
use super::{Call, Reply};
use crate::inspect::{Settled, Settlement, StepChange};
use crate::{Claim, Completion, Fenced, Record, Token};

/// The result of [`check`](super::check).
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many keys have a history.
    pub histories: usize,
    /// How many calls there are in all, without those that certainly changed nothing.
    pub calls: usize,
    /// How many of the calls are open.
    pub open: usize,
    /// How many keys have too many concurrent calls to be checked.
    pub unchecked: usize,
    /// The histories that the specification does not explain.
    pub unexplained: Vec<Unexplained>,
}

impl Report {
    /// Adds the counts and the findings of another check.
    pub fn add(&mut self, other: Self) {
        self.histories += other.histories;
        self.calls += other.calls;
        self.open += other.open;
        self.unchecked += other.unchecked;
        self.unexplained.extend(other.unexplained);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} histories, {} calls, {} open, {} unchecked, {} unexplained",
            self.histories,
            self.calls,
            self.open,
            self.unchecked,
            self.unexplained.len()
        )?;
        for unexplained in &self.unexplained {
            write!(f, "\n{unexplained}")?;
        }
        Ok(())
    }
}

/// A history in which no order of the calls gives the replies that were recorded.
///
/// Its `Display` prints the shortest part that is not explained: the calls up to the first impossible reply, without those that
/// have no part in it. Claims are named A, B, C and so on, and times are milliseconds since the first call shown.
#[derive(Clone, Debug)]
pub struct Unexplained {
    pub(super) key: String,
    pub(super) operations: Vec<Operation>,
}

impl Unexplained {
    /// The record key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How many calls the shortest part has.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.operations.iter().filter(|operation| operation.is_call()).count()
    }
}

impl fmt::Display for Unexplained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "no order of these calls on {} explains their replies:", self.key)?;
        let start = self.operations.first().map_or(0, |operation| operation.from);
        let mut names = Names::default();
        for operation in &self.operations {
            let from = milliseconds(operation.from - start);
            match operation.until {
                NEVER.. => write!(f, "{from} ..          ")?,
                until => write!(f, "{from} ..{}", milliseconds(until - start))?,
            }
            writeln!(f, "  {}", names.operation(operation))?;
        }
        for (token, name) in names.in_order() {
            writeln!(f, "  {name} is {token:?}")?;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "for readers")]
fn milliseconds(moment: Moment) -> String {
    format!("{:>10.1}", moment as f64 / 1_000.0)
}

/// Short names of the claims in a history.
#[derive(Default)]
struct Names(HashMap<Token, usize>);

impl Names {
    fn of(&mut self, token: Token) -> String {
        let next = self.0.len();
        name(*self.0.entry(token).or_insert(next))
    }

    fn in_order(&self) -> Vec<(Token, String)> {
        let mut all: Vec<_> = self.0.iter().map(|(token, number)| (*number, *token)).collect();
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(number, token)| (token, name(number))).collect()
    }

    fn operation(&mut self, operation: &Operation) -> String {
        let Action::Call { process, call, reply } = &operation.action else {
            return "the store may have lost records".to_owned();
        };
        let call = self.call(call);
        let reply = reply.as_ref().map_or("no reply".to_owned(), |reply| self.reply(reply));
        format!("process {process}: {call}: {reply}")
    }

    fn call(&mut self, call: &Call) -> String {
        match call {
            Call::Claim(claim) => format!("claim {}", self.claim(claim)),
            Call::TakeOver { lapsed, claim } => {
                let lapsed = self.of(lapsed.token);
                format!("take over {lapsed} by {}", self.claim(claim))
            }
            Call::Renew(claim) => format!("renew {}", self.of(claim.token)),
            Call::Complete { claim, completion, ttl } => {
                format!(
                    "complete {} with {} for {ttl:?}",
                    self.of(claim.token),
                    outcome(completion)
                )
            }
            Call::Release(claim) => format!("release {}", self.of(claim.token)),
            Call::Read => "read".to_owned(),
            Call::RecordStep { claim, name, step } => {
                format!(
                    "record step {name} of {} as {}",
                    self.of(claim.token),
                    first_bytes(step)
                )
            }
            Call::ReadSteps(claim) => format!("read the steps of {}", self.of(claim.token)),
            Call::Park(claim) => format!("park {}", self.of(claim.token)),
            Call::Settle {
                version,
                settlement,
                live,
            } => {
                let change = self.settlement(settlement);
                format!("{live:?}: {change} {} if {:?}", self.of(version.token), version.phase)
            }
        }
    }

    fn settlement(&mut self, settlement: &Settlement) -> String {
        match settlement {
            Settlement::Forget => "forget".to_owned(),
            Settlement::Rerun { token, step: None, .. } => format!("rerun as {}", self.of(*token)),
            Settlement::Rerun {
                token,
                step: Some(StepChange::Done { name, step }),
                ..
            } => format!(
                "set step {name} to {} and rerun as {}",
                first_bytes(step),
                self.of(*token)
            ),
            Settlement::Rerun {
                token,
                step: Some(StepChange::NotDone { name }),
                ..
            } => format!("remove step {name} and rerun as {}", self.of(*token)),
            Settlement::Complete { token, completion, ttl } => {
                let outcome = outcome(completion);
                format!("complete as {} with {outcome} for {ttl:?}", self.of(*token))
            }
        }
    }

    fn claim(&mut self, claim: &Claim) -> String {
        let name = self.of(claim.token);
        format!(
            "{name} (attempt {}, lease {:?}, ttl {:?})",
            claim.attempt, claim.lease, claim.ttl
        )
    }

    fn reply(&mut self, reply: &Reply) -> String {
        match reply {
            Reply::Acquired => "acquired".to_owned(),
            Reply::Existing(record) | Reply::Found(Some(record)) => self.record(record),
            Reply::Fenced(Fenced::Applied) | Reply::Settled(Settled::Applied) => "applied".to_owned(),
            Reply::Settled(Settled::Changed) => "it has changed".to_owned(),
            Reply::Settled(Settled::Live(left)) => format!("it is live for another {left:?}"),
            Reply::Fenced(Fenced::Superseded) | Reply::Steps(None) => "superseded".to_owned(),
            Reply::Found(None) => "nothing is there".to_owned(),
            Reply::Steps(Some(steps)) => {
                let steps = steps
                    .iter()
                    .map(|(name, step)| format!("{name} as {}", first_bytes(step)));
                format!("steps: {}", steps.collect::<Vec<_>>().join(", "))
            }
        }
    }

    fn record(&mut self, record: &Record) -> String {
        match record {
            Record::Claimed { claim, remaining } if remaining.is_zero() => {
                format!("{} is there, lapsed", self.of(claim.token))
            }
            Record::Claimed { claim, remaining } => {
                format!("{} is there, for another {remaining:?}", self.of(claim.token))
            }
            Record::Parked { claim } => format!("{} is there, parked", self.of(claim.token)),
            Record::Completed { completion, .. } => format!("completed with {}", outcome(completion)),
        }
    }
}

/// `A` to `Z`, and then `A1` and so on.
fn name(number: usize) -> String {
    const LETTERS: &[u8; 26] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let letter = char::from(LETTERS[number % LETTERS.len()]);
    match number / LETTERS.len() {
        0 => letter.to_string(),
        round => format!("{letter}{round}"),
    }
}

/// The first bytes, as hexadecimal digits.
fn first_bytes(bytes: &[u8]) -> String {
    let first = bytes.iter().take(4).map(|byte| format!("{byte:02x}"));
    first.collect::<String>()
}

/// An outcome, with the first bytes of its payload or of the payload's digest.
fn outcome(completion: &Completion) -> String {
    match completion {
        Completion::Stored(payload) => format!("payload {}", first_bytes(payload)),
        Completion::NotStored => "an outcome that is not stored".to_owned(),
        Completion::Unknown => "an unknown outcome".to_owned(),
    }
}
