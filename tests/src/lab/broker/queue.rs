//! A queue that delivers at least once, and does to messages what brokers do.
//!
//! Owns which message is delivered when, and what it was told of each delivery. It delivers a message again when a consumer asks for
//! it, is gone, or takes too long. It delivers copies, in any order outside partitions, and loses acknowledgements. A partition is in
//! order: it has one consumer at a time and goes on where it has stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::{Answer, Ask, Delivered, Delivery, Outcome};
use super::plan::{Item, Plan, SHORT_TTL};
use crate::lab::journal::{Event, Journal};
use crate::lab::random::Random;

/// How long a consumer has before its deliveries are given up: more than a third of the lease, after which it extends the time.
pub(super) const VISIBILITY: Duration = Duration::from_secs(3);
/// The same where the queue is impatient.
const IMPATIENCE: Duration = Duration::from_millis(300);
/// In how many deliveries of a message it is.
const IMPATIENT_DELIVERIES: u32 = 3;
/// How many messages outside partitions are delivered together, how many of a partition, and of how many partitions.
const AT_ONCE: usize = 6;
const IN_ORDER_AT_ONCE: usize = 4;
const PARTITIONS_AT_ONCE: usize = 2;
/// How much later than its expiry a result is asked for.
const BEYOND: Duration = Duration::from_millis(300);

/// What was said of one delivery.
#[derive(Clone, Debug)]
pub(super) struct Note {
    pub(super) item: usize,
    pub(super) delivery: usize,
    pub(super) outcome: Outcome,
    /// What the consumer asked for, if it said anything.
    pub(super) ask: Option<Ask>,
}

/// All that came of a round, as the queue has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) notes: Vec<Note>,
    /// The messages that are neither acknowledged nor set aside.
    pub(super) unsettled: BTreeSet<usize>,
    /// Of these, those that a partition does not get over.
    pub(super) blocking: BTreeSet<usize>,
    pub(super) partitions: usize,
    pub(super) lost_acks: usize,
    pub(super) delivered_after_expiry: usize,
}

/// What is to be delivered outside partitions.
#[derive(Debug)]
struct Pending {
    item: usize,
    due: Instant,
}

/// A partition for one consumer.
#[derive(Debug)]
struct Lane {
    items: Vec<usize>,
    /// The first of them that is neither acknowledged nor set aside.
    next: usize,
    due: Instant,
    /// The batch that has it.
    out: Option<usize>,
    /// Whether it is still to be delivered from its beginning once more.
    rewinds: bool,
}

/// A delivery that a consumer has.
#[derive(Debug)]
struct Sent {
    number: usize,
    item: usize,
    lane: Option<usize>,
    until: Instant,
    is_impatient: bool,
    /// Whether it was given up: its message is to be delivered again, and what is said of it does not count.
    is_given_up: bool,
}

#[derive(Debug)]
pub(super) struct Queue {
    plan: Arc<Plan>,
    journal: Journal,
    begun: Instant,
    random: Random,
    pending: Vec<Pending>,
    lanes: Vec<Lane>,
    out: BTreeMap<usize, Vec<Sent>>,
    batches: usize,
    deliveries: usize,
    /// Of each item: how often it was delivered, and how many acknowledgements are still to be lost.
    counts: Vec<u32>,
    to_lose: Vec<u32>,
    report: Report,
}

impl Queue {
    pub(super) fn new(plan: Arc<Plan>, journal: Journal, now: Instant) -> Self {
        let mut pending = Vec::new();
        let mut lanes: BTreeMap<(&str, usize), Lane> = BTreeMap::new();
        for (item, planned) in plan.items.iter().enumerate() {
            let due = now + planned.published;
            if let Some(partition) = planned.partition {
                let lane = lanes.entry((planned.consumer, partition)).or_insert_with(|| Lane {
                    items: Vec::new(),
                    next: 0,
                    due,
                    out: None,
                    rewinds: partition.is_multiple_of(3),
                });
                lane.items.push(item);
            } else {
                pending.push(Pending { item, due });
                let copies = planned.copies.iter().map(|later| due + *later);
                pending.extend(copies.map(|due| Pending { item, due }));
            }
        }
        let lanes: Vec<_> = lanes.into_values().collect();
        let report = Report {
            unsettled: (0..plan.items.len()).collect(),
            partitions: lanes.len(),
            ..Report::default()
        };
        Self {
            random: Random::new(plan.seed),
            counts: vec![0; plan.items.len()],
            to_lose: plan.items.iter().map(|item| item.lost_acks).collect(),
            journal,
            begun: now,
            pending,
            lanes,
            out: BTreeMap::new(),
            batches: 0,
            deliveries: 0,
            report,
            plan,
        }
    }

    fn item(&self, item: usize) -> &Item {
        &self.plan.items[item]
    }

    /// What is due for this consumer, if anything is.
    pub(super) fn take(&mut self, consumer: &str, now: Instant) -> Option<Delivered> {
        self.give_up(now);
        self.batches += 1;
        let batch = self.batches;
        let mut chosen = self.take_pending(consumer, now);
        chosen.extend(self.take_partitions(consumer, batch, now));
        if chosen.is_empty() {
            return None;
        }
        let (mut sent, mut deliveries) = (Vec::new(), Vec::new());
        for (item, lane) in chosen {
            self.deliveries += 1;
            self.counts[item] += 1;
            let (number, count) = (self.deliveries, self.counts[item]);
            let planned = self.item(item);
            let is_impatient = planned.is_impatient && count <= IMPATIENT_DELIVERIES;
            sent.push(Sent {
                number,
                item,
                lane,
                until: now + if is_impatient { IMPATIENCE } else { VISIBILITY },
                is_impatient,
                is_given_up: false,
            });
            deliveries.push(Delivery {
                number,
                count,
                partition: planned.partition,
                die: planned.die.filter(|_| count == 1),
                message: planned.message.clone(),
            });
        }
        self.out.insert(batch, sent);
        Some(Delivered { batch, deliveries })
    }

    fn take_pending(&mut self, consumer: &str, now: Instant) -> Vec<(usize, Option<usize>)> {
        // They were published in one order and come in another.
        self.random.shuffle(&mut self.pending);
        let plan = self.plan.clone();
        let mut taken = Vec::new();
        self.pending.retain(|pending| {
            let is_due = pending.due <= now && plan.items[pending.item].consumer == consumer;
            let is_taken = is_due && taken.len() < AT_ONCE;
            if is_taken {
                taken.push((pending.item, None));
            }
            !is_taken
        });
        taken
    }

    fn take_partitions(&mut self, consumer: &str, batch: usize, now: Instant) -> Vec<(usize, Option<usize>)> {
        let (plan, begun) = (self.plan.clone(), self.begun);
        let mut taken = Vec::new();
        let free = self.lanes.iter_mut().enumerate();
        let free = free.filter(|(_, lane)| lane.out.is_none() && lane.due <= now && lane.next < lane.items.len());
        let ours = free.filter(|(_, lane)| plan.items[lane.items[0]].consumer == consumer);
        for (number, lane) in ours.take(PARTITIONS_AT_ONCE) {
            let rest = lane.items[lane.next..].iter().copied();
            let is_published = |item: &usize| begun + plan.items[*item].published <= now;
            let first: Vec<_> = rest.take_while(is_published).take(IN_ORDER_AT_ONCE).collect();
            if !first.is_empty() {
                lane.out = Some(batch);
            }
            taken.extend(first.into_iter().map(|item| (item, Some(number))));
        }
        taken
    }

    /// A consumer still works on a delivery.
    pub(super) fn extend(&mut self, batch: usize, number: usize, now: Instant) {
        let Some(sent) = self.out.get_mut(&batch) else { return };
        let lane = sent
            .iter()
            .find(|sent| sent.number == number)
            .and_then(|sent| sent.lane);
        for sent in sent {
            let is_meant = sent.number == number || lane.is_some() && sent.lane == lane;
            if is_meant && !sent.is_impatient {
                sent.until = now + VISIBILITY;
            }
        }
    }

    /// A consumer is done with a batch.
    pub(super) fn done(&mut self, batch: usize, answers: &[Answer], now: Instant) {
        let mut stopped = BTreeSet::new();
        for (sent, answer) in self.out.remove(&batch).into_iter().flatten().zip(answers) {
            self.report.notes.push(Note {
                item: sent.item,
                delivery: sent.number,
                outcome: answer.outcome.clone(),
                ask: Some(answer.ask),
            });
            let is_over = sent.is_given_up || sent.lane.is_some_and(|lane| stopped.contains(&lane));
            if is_over {
                continue;
            }
            let goes_on = answer.ask == Ask::Acknowledge;
            let again = self.settle(sent.item, answer.ask, now);
            match (sent.lane, again) {
                (None, Some(due)) => self.pending.push(Pending { item: sent.item, due }),
                (Some(lane), Some(due)) => self.lanes[lane].due = due,
                (Some(lane), None) => self.lanes[lane].next += 1,
                (None, None) => {}
            }
            if let Some(lane) = sent.lane.filter(|_| !goes_on || again.is_some()) {
                stopped.insert(lane);
            }
        }
        self.free_lanes(batch);
    }

    /// Notes that a message is done with, or returns when it is to be delivered again.
    fn settle(&mut self, item: usize, ask: Ask, now: Instant) -> Option<Instant> {
        if let Ask::Redeliver(after) = ask {
            return Some(now + Duration::from_millis(after));
        }
        if self.to_lose[item] > 0 {
            self.to_lose[item] -= 1;
            self.report.lost_acks += 1;
            return Some(now + VISIBILITY);
        }
        let key = self.item(item).key();
        self.journal.write(match ask {
            Ask::SetAside => Event::SetAside { key },
            _ => Event::Acknowledged { key },
        });
        if self.report.unsettled.remove(&item) && self.item(item).expires() {
            for later in [SHORT_TTL / 2, SHORT_TTL + BEYOND] {
                let due = now + later;
                self.pending.push(Pending { item, due });
            }
            self.report.delivered_after_expiry += 1;
        }
        None
    }

    /// The connection of the consumer that has a batch is broken.
    pub(super) fn lose(&mut self, batch: usize, now: Instant) {
        for sent in self.out.remove(&batch).into_iter().flatten() {
            self.note(&sent, Outcome::ConsumerGone);
            self.put_back(&sent, now);
        }
        self.free_lanes(batch);
    }

    /// Gives up the deliveries that consumers have had for too long.
    fn give_up(&mut self, now: Instant) {
        let mut out = std::mem::take(&mut self.out);
        for (batch, sent) in &mut out {
            let is_late = |sent: &&mut Sent| !sent.is_given_up && sent.until <= now;
            let late: BTreeSet<_> = sent.iter_mut().filter(is_late).map(|sent| sent.number).collect();
            let lanes: BTreeSet<_> = sent
                .iter()
                .filter(|sent| late.contains(&sent.number))
                .filter_map(|sent| sent.lane)
                .collect();
            for sent in sent {
                let is_meant = late.contains(&sent.number) || sent.lane.is_some_and(|lane| lanes.contains(&lane));
                if is_meant && !sent.is_given_up {
                    sent.is_given_up = true;
                    self.note(sent, Outcome::GivenUp);
                    self.pending.extend(sent.lane.is_none().then_some(Pending {
                        item: sent.item,
                        due: now,
                    }));
                }
            }
            for lane in lanes {
                self.lanes[lane].out = self.lanes[lane].out.filter(|has| has != batch);
            }
        }
        self.out = out;
    }

    fn note(&mut self, sent: &Sent, outcome: Outcome) {
        self.report.notes.push(Note {
            item: sent.item,
            delivery: sent.number,
            outcome,
            ask: None,
        });
    }

    fn put_back(&mut self, sent: &Sent, now: Instant) {
        if sent.lane.is_none() && !sent.is_given_up {
            let item = sent.item;
            self.pending.push(Pending { item, due: now });
        }
    }

    fn free_lanes(&mut self, batch: usize) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.out == Some(batch)) {
            lane.out = None;
        }
    }

    /// Whether nothing is to be delivered any more. Begins the partitions anew that are to be delivered twice.
    pub(super) fn is_settled(&mut self, now: Instant) -> bool {
        self.give_up(now);
        for lane in &mut self.lanes {
            if lane.rewinds && lane.next == lane.items.len() {
                lane.rewinds = false;
                lane.next = 0;
            }
        }
        let is_out = self.out.values().flatten().any(|sent| !sent.is_given_up);
        !is_out && self.pending.is_empty() && self.lanes.iter().all(|lane| lane.next == lane.items.len())
    }

    /// Delivers every message again whose result has not expired.
    pub(super) fn replay(&mut self, now: Instant) {
        for lane in &mut self.lanes {
            lane.next = 0;
        }
        let plan = self.plan.clone();
        let items = plan.items.iter().enumerate();
        let again = items.filter(|(_, planned)| planned.partition.is_none() && !planned.expires());
        self.pending.extend(again.map(|(item, _)| Pending { item, due: now }));
    }

    pub(super) fn report(&self) -> Report {
        let mut report = self.report.clone();
        let stuck = self.lanes.iter().filter_map(|lane| lane.items.get(lane.next));
        report.blocking = stuck.copied().collect();
        report.unsettled.extend(self.pending.iter().map(|pending| pending.item));
        report
    }
}
