//! Each rule, broken once; and what the queue does to messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::judge::{Judged, judge};
use super::message::{Answer, Ask, Failing, Message, Outcome};
use super::plan::{Item, Plan, SHORT_TTL};
use super::queue::{Note, Queue, Report, VISIBILITY};
use crate::lab::journal::{Entry, Event, Journal};

fn item(id: &str, partition: Option<usize>) -> Item {
    Item {
        consumer: "ship",
        message: Message {
            id: id.to_owned(),
            takes: 0,
            ttl: 86_400_000,
            waits: false,
            refuses: false,
            fails: None,
        },
        partition,
        published: Duration::ZERO,
        copies: Vec::new(),
        lost_acks: 0,
        is_impatient: false,
        die: None,
    }
}

/// A round of two messages, of one partition, told line by line.
struct Tale {
    plan: Plan,
    entries: Vec<Entry>,
    report: Report,
}

impl Tale {
    fn new() -> Self {
        let items = vec![item("m0", Some(0)), item("m1", Some(0))];
        Self {
            plan: Plan {
                seed: 0,
                keeps: true,
                items,
                faults: Vec::new(),
            },
            entries: Vec::new(),
            report: Report::default(),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Item)) -> Self {
        change(&mut self.plan.items[0]);
        self
    }

    fn at(mut self, at: Duration, process: u32, event: Event) -> Self {
        self.entries.push(Entry { at, process, event });
        self
    }

    fn then(self, process: u32, event: Event) -> Self {
        self.at(Duration::ZERO, process, event)
    }

    /// Process, delivery and token have the same number.
    fn began(self, message: &str, number: u32, attempt: u32) -> Self {
        let event = Event::Began {
            key: format!("ship/{message}"),
            request: number.to_string(),
            order: message.to_owned(),
            attempt,
            token: format!("t{number}"),
        };
        self.then(number, event)
    }

    fn had_effect(self, number: u32) -> Self {
        let token = format!("t{number}");
        self.then(number, Event::Effect { token })
    }

    fn ended(self, number: u32) -> Self {
        let token = format!("t{number}");
        self.then(number, Event::Ended { token })
    }

    fn ran(self, message: &str, number: u32, attempt: u32) -> Self {
        self.began(message, number, attempt).had_effect(number).ended(number)
    }

    fn killed(self, process: u32) -> Self {
        self.then(0, Event::Killed { process })
    }

    fn acknowledged(self, message: &str) -> Self {
        let key = format!("ship/{message}");
        self.then(0, Event::Acknowledged { key })
    }

    fn noted(mut self, delivery: usize, outcome: Outcome, ask: Ask) -> Self {
        self.report.notes.push(Note {
            item: 0,
            delivery,
            outcome,
            ask: Some(ask),
        });
        self
    }

    fn judged(&self) -> Judged {
        judge(&self.plan, &self.entries, &self.report)
    }

    fn is_fine(&self) {
        let violations = self.judged().rules.violations;
        assert!(violations.is_empty(), "{violations:?}");
    }

    fn breaks(&self, rule: &str) {
        let violations = self.judged().rules.violations.join("\n");
        assert!(violations.contains(&format!("  {rule}: ")), "{rule}: {violations}");
    }
}

#[test]
fn a_message_runs_once_and_its_duplicates_get_the_result() {
    let tale = Tale::new().ran("m0", 1, 1).acknowledged("m0");
    let ran = Outcome::Ran("t1".to_owned());
    let replayed = Outcome::Replayed("t1".to_owned());
    tale.noted(1, ran, Ask::Acknowledge)
        .noted(2, replayed, Ask::Acknowledge)
        .is_fine();
}

#[test]
fn a_second_effect_is_a_violation_unless_something_explains_it() {
    let twice = || Tale::new().ran("m0", 1, 1);
    twice().ran("m0", 2, 1).breaks("IDEM-2");
    twice().killed(1).ran("m0", 2, 2).is_fine();
    twice().killed(1).ran("m0", 2, 1).breaks("IDEM-7");
    twice()
        .killed(1)
        .with(|item| item.message.refuses = true)
        .ran("m0", 2, 2)
        .breaks("IDEM-7");
    let lost = |tale: Tale| {
        let what = "FLUSHALL".to_owned();
        tale.then(0, Event::Fault { what, loses: true })
    };
    lost(twice()).ran("m0", 2, 1).is_fine();
    lost(twice()).ran("m0", 2, 1).ran("m0", 3, 1).breaks("IDEM-2");
    let replayed = Outcome::Replayed("t1".to_owned());
    let kept = twice().killed(1).ran("m0", 2, 2).noted(3, replayed, Ask::Acknowledge);
    kept.breaks("IDEM-2");
}

#[test]
fn a_result_may_be_gone_after_its_time_and_not_before() {
    let again = |later| {
        let short = u64::try_from(SHORT_TTL.as_millis()).expect("some seconds");
        let tale = Tale::new().with(|item| item.message.ttl = short);
        let mut tale = tale.ran("m0", 1, 1).ran("m0", 2, 1);
        for entry in &mut tale.entries[3..] {
            entry.at = later;
        }
        tale
    };
    again(SHORT_TTL).is_fine();
    assert_eq!(again(SHORT_TTL).judged().counts["ran again, result expired"], 1);
    again(SHORT_TTL / 2).breaks("IDEM-2");
}

#[test]
fn two_runs_at_a_time_are_a_violation() {
    Tale::new().began("m0", 1, 1).ran("m0", 2, 1).ended(1).breaks("IDEM-1");
}

#[test]
fn a_failed_run_may_be_followed_by_another_one() {
    let token = "t1".to_owned();
    let failed = Tale::new().began("m0", 1, 1).then(1, Event::Released { token });
    failed.ran("m0", 2, 1).acknowledged("m0").is_fine();
}

#[test]
fn a_message_without_an_effect_is_lost() {
    Tale::new().acknowledged("m0").breaks("lost");
    let early = Tale::new().began("m0", 1, 1).acknowledged("m0");
    early.had_effect(1).ended(1).breaks("lost");
    let mut unsettled = Tale::new();
    unsettled.report.unsettled.insert(0);
    unsettled.breaks("lost");
}

#[test]
fn a_partition_that_stands_still_is_blocked() {
    let mut blocked = Tale::new();
    blocked.report.blocking.insert(1);
    blocked.breaks("blocked");
}

#[test]
fn a_message_begins_after_the_one_before_it() {
    Tale::new().ran("m0", 1, 1).ran("m1", 2, 1).is_fine();
    Tale::new().ran("m1", 2, 1).ran("m0", 1, 1).breaks("order");
    Tale::new().began("m0", 1, 1).ran("m1", 2, 1).ended(1).breaks("order");
    let key = "ship/m0".to_owned();
    Tale::new().then(0, Event::SetAside { key }).ran("m1", 2, 1).is_fine();
}

#[test]
fn a_result_is_of_the_same_consumer() {
    let replayed = Outcome::Replayed("t9".to_owned());
    Tale::new().noted(1, replayed, Ask::Acknowledge).breaks("IDEM-9");
}

#[test]
fn a_refused_delivery_has_not_run() {
    let tale = Tale::new().ran("m0", 1, 1);
    tale.noted(1, Outcome::Unavailable, Ask::Redeliver(1_000))
        .breaks("IDEM-13");
}

#[test]
fn a_message_is_set_aside_for_a_reason_only() {
    let unknown = || Tale::new().noted(1, Outcome::Unknown, Ask::SetAside);
    unknown().breaks("IDEM-13");
    unknown().with(|item| item.message.refuses = true).is_fine();
    let lives = unknown().with(|item| item.message.refuses = true).ran("m0", 2, 1);
    lives.breaks("IDEM-13");
    let failed = Tale::new().with(|item| item.message.fails = Some(Failing::Finally));
    failed
        .began("m0", 1, 1)
        .ended(1)
        .noted(1, Outcome::FailedForGood, Ask::SetAside)
        .is_fine();
    Tale::new().noted(1, Outcome::InFlight, Ask::SetAside).breaks("verdict");
}

/// A queue of these items, and when it began.
fn queue(items: Vec<Item>) -> (Queue, Instant, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let journal = Journal::open(&folder.path().join("journal"));
    let (keeps, faults) = (true, Vec::new());
    let plan = Plan {
        seed: 0,
        keeps,
        items,
        faults,
    };
    let now = Instant::now();
    (Queue::new(Arc::new(plan), journal, now), now, folder)
}

fn ids(queue: &mut Queue, now: Instant) -> Option<(usize, Vec<String>)> {
    let delivered = queue.take("ship", now)?;
    let id = |delivery: super::message::Delivery| delivery.message.id;
    Some((delivered.batch, delivered.deliveries.into_iter().map(id).collect()))
}

fn answers(asks: &[Ask]) -> Vec<Answer> {
    let outcome = Outcome::InFlight;
    asks.iter()
        .map(|ask| Answer {
            ask: *ask,
            outcome: outcome.clone(),
        })
        .collect()
}

#[test]
fn a_partition_goes_on_where_it_has_stopped() {
    let items = ["m0", "m1", "m2"].map(|id| item(id, Some(1)));
    let (mut queue, now, _folder) = queue(items.into());
    let (batch, first) = ids(&mut queue, now).expect("it is due");
    assert_eq!(first, ["m0", "m1", "m2"]);
    assert_eq!(ids(&mut queue, now), None, "it has one consumer at a time");
    queue.done(
        batch,
        &answers(&[Ask::Acknowledge, Ask::Redeliver(500), Ask::Acknowledge]),
        now,
    );
    assert_eq!(ids(&mut queue, now), None, "it was asked to wait");
    let (batch, second) = ids(&mut queue, now + VISIBILITY).expect("it is due");
    assert_eq!(second, ["m1", "m2"]);
    queue.done(batch, &answers(&[Ask::SetAside, Ask::Redeliver(0)]), now);
    let (batch, third) = ids(&mut queue, now + VISIBILITY).expect("it is due");
    assert_eq!(third, ["m2"]);
    queue.lose(batch, now);
    assert_eq!(queue.report().blocking.len(), 1);
    let (batch, last) = ids(&mut queue, now + VISIBILITY).expect("its consumer was gone");
    assert_eq!(last, ["m2"]);
    queue.done(batch, &answers(&[Ask::Acknowledge]), now);
    assert!(queue.is_settled(now) && queue.report().blocking.is_empty());
}

#[test]
fn a_message_is_delivered_again_until_the_queue_has_its_acknowledgement() {
    let mut lossy = item("m0", None);
    lossy.lost_acks = 1;
    let (mut queue, now, _folder) = queue(vec![lossy]);
    let (late, _) = ids(&mut queue, now).expect("it is due");
    let (batch, _) = ids(&mut queue, now + VISIBILITY).expect("it was not answered");
    queue.done(late, &answers(&[Ask::Acknowledge]), now);
    queue.done(batch, &answers(&[Ask::Acknowledge]), now);
    assert!(!queue.is_settled(now), "its acknowledgement was lost");
    let (batch, _) = ids(&mut queue, now + VISIBILITY).expect("it is due");
    queue.done(batch, &answers(&[Ask::Acknowledge]), now);
    assert!(queue.is_settled(now + VISIBILITY) && queue.report().unsettled.is_empty());
    queue.replay(now);
    assert!(ids(&mut queue, now).is_some());
}
