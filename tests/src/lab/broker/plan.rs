//! Which messages there are, what the queue does to them, and what goes wrong, from a seed.

use std::time::Duration;

use super::message::{CONSUMERS, Failing, Message};
use crate::lab::faults::Fault;
use crate::lab::plan::{Size, schedule};
use crate::lab::random::Random;
use crate::lab::server::Backend;
use crate::lab::service::Point;

/// How many messages a FIFO partition has.
const IN_PARTITION: usize = 8;
/// For how long a result is kept that is to expire within the round.
pub(super) const SHORT_TTL: Duration = Duration::from_secs(5);
const LONG_TTL: Duration = Duration::from_hours(24);

/// One round.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) seed: u64,
    /// Whether no fault loses what is recorded.
    pub(super) keeps: bool,
    /// Each message once for each consumer.
    pub(super) items: Vec<Item>,
    pub(super) faults: Vec<(Duration, Fault)>,
}

/// A message for one consumer, and what the queue does to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) consumer: &'static str,
    pub(super) message: Message,
    pub(super) partition: Option<usize>,
    /// When it is there.
    pub(super) published: Duration,
    /// How much later each further copy is there; none in a partition.
    pub(super) copies: Vec<Duration>,
    /// How many acknowledgements the queue does not get.
    pub(super) lost_acks: u32,
    /// Whether the queue delivers it again soon, and takes no extension.
    pub(super) is_impatient: bool,
    /// Where the process dies that gets the first delivery.
    pub(super) die: Option<Point>,
}

impl Plan {
    /// Even seeds keep what is recorded, odd ones lose it at times.
    pub(super) fn new(seed: u64, backend: Backend, size: Size) -> Self {
        let mut random = Random::new(seed);
        let keeps = seed.is_multiple_of(2);
        let mut items = Vec::new();
        for number in 0..size.keys {
            // Half of them are in partitions, which follow one another.
            let partition = (number < size.keys / 2).then_some(number / IN_PARTITION);
            let latest = u64::try_from(size.span.as_millis()).expect("a short time");
            let published = random.millis(0, latest);
            for consumer in CONSUMERS {
                items.push(Item::new(&mut random, number, consumer, partition, published));
            }
        }
        let deal = |random: &mut Random| Fault::deal_to_consumers(random, backend, keeps);
        let faults = schedule(&mut random, size.span, deal);
        Self {
            seed,
            keeps,
            items,
            faults,
        }
    }
}

impl Item {
    fn new(
        random: &mut Random,
        number: usize,
        consumer: &'static str,
        partition: Option<usize>,
        published: Duration,
    ) -> Self {
        let is_in_order = partition.is_some();
        let fails = match random.below(12) {
            0 => Some(Failing::Transiently(random.one_of(&[1, 2]))),
            1 if random.one_in(2) => Some(Failing::Panicking),
            2 => Some(Failing::Finally),
            _ => None,
        };
        let expires = !is_in_order && random.one_in(6);
        let ttl = if expires { SHORT_TTL } else { LONG_TTL };
        let copies = if is_in_order { 0 } else { random.below(3) };
        Self {
            consumer,
            message: Message {
                id: format!("m{number}"),
                takes: random.one_of(&[0, 0, 50, 200, 600, 1_000]),
                ttl: u64::try_from(ttl.as_millis()).expect("a day"),
                waits: random.one_in(3),
                refuses: fails.is_none() && random.one_in(5),
                fails,
            },
            partition,
            published,
            copies: (0..copies).map(|_| random.millis(0, 1_500)).collect(),
            lost_acks: u32::from(random.one_in(6)),
            is_impatient: random.one_in(6),
            die: random
                .one_in(if is_in_order { 24 } else { 12 })
                .then(|| random.one_of(&Point::ALL)),
        }
    }

    /// Its name in the journal.
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.consumer, self.message.id)
    }

    /// Whether its result expires within the round.
    pub(super) fn expires(&self) -> bool {
        self.message.ttl == u64::try_from(SHORT_TTL.as_millis()).unwrap_or_default()
    }
}
