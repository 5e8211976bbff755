//! Judges what happened to each message for each consumer.
//!
//! Owns the rules: one effect for each consumer, and one more at most for each loss that is documented; no message is lost; no partition
//! is blocked, or out of order. What ran is in the journal, and what consumers said in the queue's notes.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use super::message::{Ask, Failing, Outcome};
use super::plan::{Item, Plan, SHORT_TTL};
use super::queue::{Note, Report};
use crate::lab::journal::{Entry, Event};
use crate::lab::oracle::{Harm, Run, Verdict, runs_by_key};

/// What the rules say to a round, and what came of its messages.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) rules: Verdict,
    pub(super) counts: BTreeMap<&'static str, usize>,
}

/// A rule that was broken, and how.
type Broken = (&'static str, String);

/// Why there was more than one run.
#[derive(Clone, Copy, Debug, Default)]
struct Explained {
    /// A process died between the effect and the record.
    died: usize,
    /// The result had expired.
    expired: usize,
    /// The server had lost its records.
    lost: usize,
}

/// All that is known of one message for one consumer.
#[derive(Debug)]
struct Life<'a> {
    item: &'a Item,
    key: String,
    runs: Vec<Run<'a>>,
    notes: Vec<&'a Note>,
    /// The lines that say so.
    acknowledged: Option<usize>,
    set_aside: Option<usize>,
}

pub(super) fn judge(plan: &Plan, entries: &[Entry], report: &Report) -> Judged {
    let harm = Harm::new(entries);
    let lives = lives(plan, entries, report);
    let mut rules = Verdict::default();
    let mut all = Explained::default();
    // Of each partition, the line by which all messages so far were over.
    let mut over: HashMap<(&str, usize), usize> = HashMap::new();
    for (number, life) in lives.iter().enumerate() {
        let (explained, mut broken) = life.check_runs(&harm);
        broken.extend(
            life.notes
                .iter()
                .flat_map(|note| life.check_note(note, &harm, plan.keeps)),
        );
        broken.extend(life.check_end(report.unsettled.contains(&number), report.blocking.contains(&number)));
        if let Some(partition) = life.item.partition {
            let before = over.entry((life.item.consumer, partition)).or_default();
            broken.extend(life.check_order(*before));
            *before = (*before).max(life.over().unwrap_or(usize::MAX));
        }
        if !broken.is_empty() {
            rules.violations.push(life.tell(plan.seed, &harm, &broken));
        }
        let documented = explained.expired + explained.lost;
        let executed = life.runs.iter().filter(|run| !run.is_released).count();
        rules.executions.push(executed.saturating_sub(documented));
        rules.documented += documented;
        all.died += explained.died;
        all.expired += explained.expired;
        all.lost += explained.lost;
    }
    let is_set_aside = |life: &&Life<'_>| life.set_aside.is_some();
    let counts = BTreeMap::from([
        (
            "acknowledged",
            lives.iter().filter(|life| life.acknowledged.is_some()).count(),
        ),
        ("set aside", lives.iter().filter(is_set_aside).count()),
        ("effects", lives.iter().map(|life| life.effects().count()).sum()),
        ("ran again, killed before the record", all.died),
        ("ran again, result expired", all.expired),
        ("ran again, records lost", all.lost),
        ("acknowledgements lost", report.lost_acks),
        ("delivered after their expiry", report.delivered_after_expiry),
        ("partitions, for each consumer", report.partitions),
    ]);
    Judged { rules, counts }
}

fn lives<'a>(plan: &'a Plan, entries: &'a [Entry], report: &'a Report) -> Vec<Life<'a>> {
    let mut runs = runs_by_key(entries);
    let mut acknowledged: HashMap<&str, usize> = HashMap::new();
    let mut set_aside: HashMap<&str, usize> = HashMap::new();
    for (line, entry) in entries.iter().enumerate() {
        match &entry.event {
            Event::Acknowledged { key } => acknowledged.entry(key).or_insert(line),
            Event::SetAside { key } => set_aside.entry(key).or_insert(line),
            _ => continue,
        };
    }
    let items = plan.items.iter().map(|item| {
        let key = item.key();
        Life {
            item,
            runs: runs.remove(key.as_str()).unwrap_or_default(),
            notes: Vec::new(),
            acknowledged: acknowledged.get(key.as_str()).copied(),
            set_aside: set_aside.get(key.as_str()).copied(),
            key,
        }
    });
    let mut lives: Vec<_> = items.collect();
    for note in &report.notes {
        lives[note.item].notes.push(note);
    }
    lives
}

impl Life<'_> {
    fn effects(&self) -> impl Iterator<Item = usize> {
        self.runs.iter().filter_map(|run| run.effect)
    }

    /// The line by which it was over for the first time.
    fn over(&self) -> Option<usize> {
        let ended = self
            .runs
            .iter()
            .filter(|run| !run.is_released)
            .filter_map(|run| run.ended);
        ended.chain(self.set_aside).min()
    }

    /// The rules about who runs when, and what explains more runs than one.
    fn check_runs(&self, harm: &Harm<'_>) -> (Explained, Vec<Broken>) {
        let (mut explained, mut broken) = (Explained::default(), Vec::new());
        for run in &self.runs {
            if run.order != self.item.message.id {
                broken.push(("IDEM-3", format!("{} ran for another message", run.token)));
            }
            if run.ended.is_none() && !harm.dies(run.process) {
                broken.push(("IDEM-5", format!("{} never ended, and its process lives", run.token)));
            }
        }
        if let Some(first) = self.runs.first()
            && first.attempt != 1
            && !harm.is_troubled(first.began)
        {
            broken.push(("IDEM-7", format!("the first run is attempt {}", first.attempt)));
        }
        for (before, run) in self.runs.iter().zip(self.runs.iter().skip(1)) {
            broken.extend(self.check_again(before, run, harm, &mut explained));
        }
        (explained, broken)
    }

    /// Whether anything explains that a run follows another one.
    fn check_again(
        &self,
        before: &Run<'_>,
        run: &Run<'_>,
        harm: &Harm<'_>,
        explained: &mut Explained,
    ) -> Option<Broken> {
        let has_ended = before.ended.is_some_and(|ended| ended < run.began);
        if before.is_released && has_ended {
            return None;
        }
        let has_died = harm.is_dead(before.process, run.began) && !self.was_replayed(before);
        let losses = harm.losses_before(run.began);
        if has_died && !self.item.message.refuses {
            explained.died += usize::from(before.effect.is_some());
            // A record that was lost, or has expired, counts no attempts.
            let counts = losses == 0 && !self.item.expires();
            return (counts && run.attempt <= before.attempt).then(|| {
                let what = format!("attempt {} came after attempt {}", run.attempt, before.attempt);
                ("IDEM-7", what)
            });
        }
        let kept_since = before.ended_at.unwrap_or(before.began_at);
        if self.item.expires() && run.began_at >= kept_since + SHORT_TTL {
            explained.expired += 1;
            return None;
        }
        if losses > explained.lost {
            explained.lost += 1;
            return None;
        }
        Some(if has_died {
            ("IDEM-7", format!("{} ran again, which was refused", run.token))
        } else if has_ended {
            ("IDEM-2", format!("{} ran after {} had ended", run.token, before.token))
        } else {
            ("IDEM-1", format!("{} ran beside {}", run.token, before.token))
        })
    }

    /// Whether a delivery got the recorded result of a run.
    fn was_replayed(&self, run: &Run<'_>) -> bool {
        let replays = |note: &&&Note| matches!(&note.outcome, Outcome::Replayed(token) if token == run.token);
        self.notes.iter().any(|note| replays(&note))
    }

    /// The rules about what a delivery came to.
    fn check_note(&self, note: &Note, harm: &Harm<'_>, keeps: bool) -> Vec<Broken> {
        let mut broken = Vec::new();
        let said = |what: &str| format!("delivery {}, {}: {what}", note.delivery, note.outcome.name());
        let request = note.delivery.to_string();
        let ran = self.runs.iter().any(|run| run.request == request);
        let fails = self.item.message.fails;
        let is_right = match &note.outcome {
            Outcome::Ran(token) | Outcome::Replayed(token) => {
                let run = self.runs.iter().find(|run| run.token == token);
                if run.is_none() {
                    broken.push((
                        "IDEM-9",
                        said("its result is of no run of this message for this consumer"),
                    ));
                }
                if run.is_some_and(|run| run.effect.is_none()) {
                    broken.push(("IDEM-2", said("that run had no effect")));
                }
                ran == matches!(note.outcome, Outcome::Ran(_))
            }
            Outcome::FailedForNow => ran && matches!(fails, Some(Failing::Transiently(_))),
            Outcome::Panicked => ran && fails == Some(Failing::Panicking),
            Outcome::FailedForGood => ran && fails == Some(Failing::Finally),
            Outcome::HadFailed => !ran && fails == Some(Failing::Finally),
            Outcome::Unknown => {
                // Its process may have died before it had begun; if the claim expires, it runs later all the same.
                let has_begun = !self.runs.is_empty() && !self.item.expires();
                let may_have_died = !has_begun || self.runs.iter().any(|run| harm.dies(run.process));
                !ran && self.item.message.refuses && (may_have_died || !keeps)
            }
            Outcome::InFlight | Outcome::Unavailable | Outcome::NotBegun => !ran,
            Outcome::Other(what) => {
                broken.push(("IDEM-11", said(what)));
                true
            }
            Outcome::ConsumerGone | Outcome::GivenUp => true,
        };
        if !is_right {
            broken.push(("IDEM-13", said(if ran { "it ran" } else { "it did not run" })));
        }
        if note.ask.is_some_and(|ask| !note.outcome.allows(ask)) {
            broken.push(("verdict", said(&format!("the queue was told {:?}", note.ask))));
        }
        broken
    }

    /// The rules about how it ends.
    fn check_end(&self, is_unsettled: bool, is_blocking: bool) -> Vec<Broken> {
        let mut broken = Vec::new();
        if is_unsettled {
            broken.push(("lost", "it is neither acknowledged nor set aside".to_owned()));
        }
        if is_blocking {
            broken.push(("blocked", "its partition stands still".to_owned()));
        }
        if let Some(line) = self.acknowledged
            && !self.effects().any(|effect| effect < line)
        {
            broken.push(("lost", "it was acknowledged, and had no effect before".to_owned()));
        }
        broken
    }

    /// The rule about a partition: it begins after all that come before it are over, by the line `before`.
    fn check_order(&self, before: usize) -> Option<Broken> {
        let first = self.runs.first()?;
        (first.began < before).then(|| ("order", format!("{} began before its turn", first.token)))
    }

    /// What was broken, with all that is known of the message.
    fn tell(&self, seed: u64, harm: &Harm<'_>, broken: &[Broken]) -> String {
        let mut told = format!("seed {seed}, {}, {:?}:\n", self.key, self.item);
        for (rule, what) in broken {
            let _ = writeln!(told, "  {rule}: {what}");
        }
        let _ = writeln!(told, "its journal, and what went wrong meanwhile:");
        harm.tell(&mut told, &self.key, &self.runs);
        let _ = writeln!(told, "its deliveries:");
        for note in &self.notes {
            let _ = writeln!(told, "  {}  {:?} {:?}", note.delivery, note.outcome, note.ask);
        }
        told
    }
}

impl Outcome {
    /// Whether the queue may be told so.
    fn allows(&self, ask: Ask) -> bool {
        match self {
            Self::Ran(_) | Self::Replayed(_) => ask == Ask::Acknowledge,
            Self::FailedForGood | Self::HadFailed | Self::Unknown => ask == Ask::SetAside,
            _ => matches!(ask, Ask::Redeliver(_)),
        }
    }
}
