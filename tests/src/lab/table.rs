//! What came of the lab, in numbers.

use std::collections::BTreeMap;
use std::fmt;

use idem_core::spec::history::Report;

use super::journal::{Entry, Event};
use super::oracle::Verdict;
use super::refusals::Refusals;

/// What is counted.
#[derive(Clone, Copy, Debug, Default)]
enum Load {
    #[default]
    Requests,
    Deliveries,
}

impl Load {
    /// What is sent, and what it is about.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Requests => ("requests", "keys"),
            Self::Deliveries => ("deliveries", "messages, for each consumer"),
        }
    }
}

const APPLIED: &str = "settled by an operator";
const REFUSED: &str = "not settled: live, or changed since";

/// Counts of one round, or of many.
#[derive(Debug, Default)]
pub struct Totals {
    load: Load,
    rounds: usize,
    answers: BTreeMap<&'static str, usize>,
    faults: BTreeMap<String, usize>,
    /// How many keys were executed how often.
    executions: BTreeMap<usize, usize>,
    documented: usize,
    /// What came of messages, and of an operator's settlements.
    counts: BTreeMap<&'static str, usize>,
    /// Of the requests that were sent while one fault was on and no other.
    refusals: BTreeMap<&'static str, Refusals>,
    /// Of the calls on the backend.
    histories: Report,
    unexplained: usize,
    /// Each with all that is known of its key.
    pub violations: Vec<String>,
}

impl Totals {
    pub(super) fn count(&mut self, entries: &[Entry], answers: impl Iterator<Item = &'static str>, verdict: Verdict) {
        self.rounds += 1;
        for answer in answers {
            *self.answers.entry(answer).or_default() += 1;
        }
        for entry in entries {
            let fault = match &entry.event {
                Event::Settled { is_applied, .. } => {
                    let what = if *is_applied { APPLIED } else { REFUSED };
                    *self.counts.entry(what).or_default() += 1;
                    continue;
                }
                Event::Dies { at, .. } => format!("process killed {}", at.name()),
                Event::Fault { what, .. } => what.clone(),
                _ => continue,
            };
            *self.faults.entry(fault).or_default() += 1;
        }
        for executions in verdict.executions {
            *self.executions.entry(executions).or_default() += 1;
        }
        self.documented += verdict.documented;
        self.violations.extend(verdict.violations);
    }

    /// The same of deliveries to consumers, with `counts` of what came of the messages.
    pub(super) fn count_deliveries(
        &mut self,
        entries: &[Entry],
        answers: impl Iterator<Item = &'static str>,
        verdict: Verdict,
        counts: BTreeMap<&'static str, usize>,
    ) {
        self.load = Load::Deliveries;
        self.count(entries, answers, verdict);
        self.counts = counts;
    }

    pub(super) fn count_refusals(&mut self, refusals: BTreeMap<&'static str, Refusals>) {
        self.refusals = refusals;
    }

    pub(super) fn count_histories(&mut self, mut report: Report) {
        let unexplained = report.unexplained.iter().map(ToString::to_string);
        self.violations.extend(unexplained);
        self.unexplained += report.unexplained.len();
        report.unexplained.clear();
        self.histories.add(report);
    }

    /// Adds those of another round.
    pub fn add(&mut self, other: Self) {
        fn merge<K: Ord>(sum: &mut BTreeMap<K, usize>, other: BTreeMap<K, usize>) {
            for (kind, count) in other {
                *sum.entry(kind).or_default() += count;
            }
        }
        self.load = other.load;
        self.rounds += other.rounds;
        merge(&mut self.counts, other.counts);
        merge(&mut self.answers, other.answers);
        merge(&mut self.faults, other.faults);
        merge(&mut self.executions, other.executions);
        self.documented += other.documented;
        for (kind, other) in other.refusals {
            let sum = self.refusals.entry(kind).or_default();
            sum.asked += other.asked;
            sum.refused += other.refused;
        }
        self.histories.add(other.histories);
        self.unexplained += other.unexplained;
        self.violations.extend(other.violations);
    }

    /// In a line.
    pub fn summary(&self) -> String {
        let count = |counts: &mut dyn Iterator<Item = &usize>| counts.sum::<usize>();
        let (sent, about) = self.load.words();
        let Report {
            histories, calls, open, ..
        } = self.histories;
        format!(
            "{} {sent} for {} {about}, {} faults, {histories} histories, {calls} calls, {open} open, {} unchecked, \
             {} unexplained, {} violations",
            count(&mut self.answers.values()),
            count(&mut self.executions.values()),
            count(&mut self.faults.values()),
            self.histories.unchecked,
            self.unexplained,
            self.violations.len()
        )
    }

    /// How many keys were executed more often than once, by the rules or as documented.
    pub fn executed_again(&self) -> usize {
        self.executions.range(2..).map(|(_, keys)| keys).sum::<usize>() + self.documented
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests: usize = self.answers.values().sum();
        let faults: usize = self.faults.values().sum();
        writeln!(f, "{:<42}{:>8}", "rounds", self.rounds)?;
        let (sent, about) = self.load.words();
        writeln!(f, "{sent:<42}{requests:>8}")?;
        for (answer, count) in &self.answers {
            writeln!(f, "  {answer:<40}{count:>8}")?;
        }
        writeln!(f, "{:<42}{faults:>8}", "faults")?;
        for (fault, count) in &self.faults {
            writeln!(f, "  {fault:<40}{count:>8}")?;
        }
        writeln!(f, "{about:<42}{:>8}", self.executions.values().sum::<usize>())?;
        for (number, times) in ["never", "once", "twice"].into_iter().enumerate() {
            let keys = self.executions.get(&number).copied().unwrap_or_default();
            writeln!(f, "  {:<40}{keys:>8}", format!("executed {times}"))?;
        }
        let more: usize = self.executions.range(3..).map(|(_, keys)| keys).sum();
        writeln!(f, "  {:<40}{more:>8}", "executed more often")?;
        writeln!(
            f,
            "{:<42}{:>8}",
            "more executions, after documented losses", self.documented
        )?;
        for (what, count) in &self.counts {
            writeln!(f, "  {what:<40}{count:>8}")?;
        }
        if !self.refusals.is_empty() {
            writeln!(f, "{:<42}", "503 while one fault is on and no other")?;
        }
        for (kind, Refusals { asked, refused }) in &self.refusals {
            writeln!(f, "  {kind:<40}{refused:>8} of {asked}")?;
        }
        writeln!(
            f,
            "{:<42}{:>8}",
            "histories of calls on the backend", self.histories.histories
        )?;
        for (what, count) in [
            ("calls", self.histories.calls),
            ("open, whose process or reply was lost", self.histories.open),
            ("histories too wide to be checked", self.histories.unchecked),
            ("histories that nothing explains", self.unexplained),
        ] {
            writeln!(f, "  {what:<40}{count:>8}")?;
        }
        writeln!(f, "{:<42}{:>8}", "rule violations", self.violations.len())
    }
}
