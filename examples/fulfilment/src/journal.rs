//! What all consumer processes have said about their deliveries.
//!
//! Owns the lines, and waiting for them. Does not own what follows from them: [`figures`](crate::figures).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use idem_task::Verdict;
use tokio::sync::watch;

/// What happened to a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// The process has taken it.
    Began,
    /// The task has ended.
    Ended(End),
    /// The broker is told so.
    Told,
}

/// What the broker is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// [`Verdict::Acknowledge`].
    Acknowledge,
    /// [`Verdict::Redeliver`].
    Redeliver,
    /// [`Verdict::SetAside`].
    SetAside,
}

impl From<Verdict> for End {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Acknowledge => Self::Acknowledge,
            Verdict::Redeliver(_) => Self::Redeliver,
            Verdict::SetAside => Self::SetAside,
        }
    }
}

/// One line of a consumer process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub what: What,
    /// The message, by its place in the stream.
    pub sequence: u64,
    /// Which delivery of the message it is, from 1 on.
    pub delivery: u64,
}

/// Every form of [`What`], and its word.
const WORDS: [(What, &str); 5] = [
    (What::Began, "began"),
    (What::Ended(End::Acknowledge), "shipped"),
    (What::Ended(End::Redeliver), "not-now"),
    (What::Ended(End::SetAside), "never"),
    (What::Told, "told"),
];

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = WORDS.iter().find(|(what, _)| *what == self.what);
        let word = word.map_or("", |(_, word)| word);
        write!(f, "{word} message {} delivery {}", self.sequence, self.delivery)
    }
}

impl FromStr for Event {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let [word, "message", sequence, "delivery", delivery] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err(());
        };
        let (what, _) = WORDS.iter().find(|(_, known)| *known == word).ok_or(())?;
        Ok(Self {
            what: *what,
            sequence: sequence.parse().map_err(|_| ())?,
            delivery: delivery.parse().map_err(|_| ())?,
        })
    }
}

/// An event, and the consumer and the process that it is of.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The durable consumer.
    pub consumer: Arc<str>,
    /// The process.
    pub process: u32,
    /// What it said.
    pub event: Event,
}

/// Everything that was said, in the order in which it was read. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<watch::Sender<Vec<Entry>>>);

impl Journal {
    pub(crate) fn add(&self, entry: Entry) {
        self.0.send_modify(|entries| entries.push(entry));
    }

    /// Waits until something is true of the entries.
    pub async fn until(&self, mut holds: impl FnMut(&[Entry]) -> bool) {
        // The sender is here, so there is no error.
        let _ = self.0.subscribe().wait_for(|entries| holds(entries)).await;
    }

    /// What the processes of one consumer have said so far.
    #[must_use]
    pub fn of(&self, consumer: &str) -> Vec<Entry> {
        let entries = self.0.borrow();
        let of_it = entries.iter().filter(|entry| &*entry.consumer == consumer);
        of_it.cloned().collect()
    }
}

/// How often each message was delivered.
#[must_use]
pub fn deliveries(entries: &[Entry]) -> HashMap<u64, u64> {
    let mut deliveries = HashMap::new();
    for Entry { event, .. } in entries {
        let most = deliveries.entry(event.sequence).or_default();
        *most = event.delivery.max(*most);
    }
    deliveries
}

/// How many deliveries came to one of these, and not to the other: which began and did not end, or ended and the broker was not told.
#[must_use]
pub fn cut_off(entries: &[Entry], from: impl Fn(What) -> bool, to: impl Fn(What) -> bool) -> usize {
    let those = |of: &dyn Fn(What) -> bool| -> HashSet<(u64, u64)> {
        let of = entries.iter().filter(|entry| of(entry.event.what));
        of.map(|entry| (entry.event.sequence, entry.event.delivery)).collect()
    };
    those(&from).difference(&those(&to)).count()
}
