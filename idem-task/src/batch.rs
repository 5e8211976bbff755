//! One verdict for each message of a batch, in the order of the batch.
//!
//! Owns which messages run at the same time, and which are not begun. Does not own what a message is, or whether it ran before: the
//! work that is done for each message is a [`Task`](crate::Task).
//!
//! Two messages of one batch may have the same key. If they run at the same time, one of them is
//! [`RefusedKind::InFlight`](crate::RefusedKind::InFlight) and is redelivered, unless its task [`wait`](crate::Task::wait)s.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, pending};
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::pin::pin;

use futures_util::future::{BoxFuture, Either, FutureExt as _, select};
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::refused::{SOON, TaskError, Verdict, verdict};

/// Messages that were delivered together.
///
/// ```
/// # use std::time::Duration;
/// # use idem_task::{Batch, Engine, MemoryBackend, Refused, TaskExt as _, Verdict};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// struct Message {
///     id: u32,
///     customer: &'static str,
/// }
///
/// let engine = Engine::new(MemoryBackend::new());
/// let messages = [(1, "acme"), (2, "acme"), (3, "globex")].map(|(id, customer)| Message { id, customer });
/// let verdicts = Batch::of(messages)
///     .at_once(8)
///     .in_order_of(|message| message.customer)
///     .run(|message| {
///         let task = engine.task("ship").global().key(&message.id).ttl(Duration::from_hours(24));
///         task.run(async |_| Ok::<_, Refused>(()))
///     })
///     .await;
/// assert_eq!(verdicts, [Verdict::Acknowledge; 3]);
/// # }
/// ```
#[must_use = "nothing runs until `run` is awaited"]
pub struct Batch<M, G = ()> {
    messages: Vec<M>,
    at_once: usize,
    /// The group of each message, where groups are kept in order.
    groups: Option<Vec<G>>,
    stop: BoxFuture<'static, ()>,
}

impl<M, G> std::fmt::Debug for Batch<M, G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("messages", &self.messages.len())
            .field("at_once", &self.at_once)
            .finish_non_exhaustive()
    }
}

impl<M> Batch<M> {
    /// How many messages run at once, by default.
    pub const AT_ONCE: usize = 16;

    /// A batch of these messages, of which [`Self::AT_ONCE`] run at once.
    pub fn of(messages: impl IntoIterator<Item = M>) -> Self {
        Self {
            messages: messages.into_iter().collect(),
            at_once: Self::AT_ONCE,
            groups: None,
            stop: pending().boxed(),
        }
    }

    /// Keeps the messages of a group in order: each begins when the one before it has ended, and after the first one that is not
    /// acknowledged, no other of its group begins. Those are to be redelivered.
    pub fn in_order_of<G: Eq + Hash>(self, group: impl FnMut(&M) -> G) -> Batch<M, G> {
        let groups = Some(self.messages.iter().map(group).collect());
        let Self {
            messages,
            at_once,
            stop,
            ..
        } = self;
        Batch {
            messages,
            at_once,
            groups,
            stop,
        }
    }
}

impl<M, G: Eq + Hash> Batch<M, G> {
    /// Sets how many messages run at once.
    ///
    /// # Panics
    ///
    /// When `most` is zero.
    pub fn at_once(mut self, most: usize) -> Self {
        assert!(most > 0, "`at_once` is zero, so that no message could run");
        self.at_once = most;
        self
    }

    /// Begins no other message once `stop` has resolved: the partition was revoked, or the process shuts down. Messages that have
    /// begun are run to their end; those that have not are to be redelivered.
    ///
    /// To drop the future of [`run`](Self::run) does the same, without verdicts: its tasks go on in tasks of their own.
    pub fn until(mut self, stop: impl Future<Output = ()> + Send + 'static) -> Self {
        self.stop = stop.boxed();
        self
    }

    /// Runs `work` for each message, and returns one verdict for each, in the order of the batch.
    pub async fn run<T, E, W>(self, work: impl Fn(M) -> W) -> Vec<Verdict>
    where
        W: Future<Output = Result<T, E>>,
        E: TaskError,
    {
        let mut verdicts = vec![Verdict::REDELIVER; self.messages.len()];
        let mut lanes = VecDeque::from(lanes(self.messages, self.groups));
        let mut running = FuturesUnordered::new();
        let start = |mut lane: Lane<M>| lane.pop_front().map(|first| begin(first, lane, &work));
        let mut stop = self.stop.fuse();
        let mut is_stopped = false;
        loop {
            is_stopped = is_stopped || (&mut stop).now_or_never().is_some();
            while !is_stopped && running.len() < self.at_once {
                let Some(lane) = lanes.pop_front() else { break };
                running.extend(start(lane));
            }
            if running.is_empty() {
                return verdicts;
            }
            let ended = if is_stopped {
                running.next().await
            } else {
                match select(running.next(), pin!(&mut stop)).await {
                    Either::Left((ended, _)) => ended,
                    Either::Right(((), _)) => {
                        is_stopped = true;
                        continue;
                    }
                }
            };
            let Some((place, verdict, rest)) = ended else { continue };
            if let Some(slot) = verdicts.get_mut(place) {
                *slot = verdict;
            }
            if verdict == Verdict::Acknowledge {
                lanes.push_front(rest);
            }
        }
    }
}

/// Messages that run one after the other, with their places in the batch.
type Lane<M> = VecDeque<(usize, M)>;

/// One lane for each group, or for each message.
fn lanes<M, G: Eq + Hash>(messages: Vec<M>, groups: Option<Vec<G>>) -> Vec<Lane<M>> {
    let messages = messages.into_iter().enumerate();
    let Some(groups) = groups else {
        return messages.map(|message| Lane::from([message])).collect();
    };
    let mut lanes: Vec<Lane<M>> = Vec::new();
    let mut places = HashMap::new();
    for (message, group) in messages.zip(groups) {
        let place = *places.entry(group).or_insert(lanes.len());
        match lanes.get_mut(place) {
            Some(lane) => lane.push_back(message),
            None => lanes.push(Lane::from([message])),
        }
    }
    lanes
}

/// Runs the first message of a lane, and returns its place, its verdict, and the rest of the lane.
async fn begin<M, T, E: TaskError, W: Future<Output = Result<T, E>>>(
    (place, message): (usize, M),
    rest: Lane<M>,
    work: &impl Fn(M) -> W,
) -> (usize, Verdict, Lane<M>) {
    // The panic hook has reported the panic itself, which must not take the verdicts of the other messages.
    let caught = AssertUnwindSafe(async { verdict(&work(message).await) })
        .catch_unwind()
        .await;
    (place, caught.unwrap_or(Verdict::Redeliver(SOON)), rest)
}
