//! Judges what happened to each key by the rules of `docs/semantics.md`.
//!
//! Owns the rules, and nothing else: what ran is in the journal, what clients saw in their answers, what was done in
//! transactions in the ledger, and neither the server nor the engine is asked what it believes.

mod key;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use self::key::{Life, Run};
use super::journal::{Entry, Event};
use super::ledger::Row;
use super::load::Answered;
use super::plan::Plan;

/// What the rules say to a round.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) violations: Vec<String>,
    /// Of each key, how often it was executed by the rules.
    pub(super) executions: Vec<usize>,
    /// How often a key was executed again because the server had lost its record, as documented.
    pub(super) documented: usize,
}

/// What all keys of a round share.
#[derive(Debug)]
struct Round<'a> {
    plan: &'a Plan,
    entries: &'a [Entry],
    /// Of each dead process, the line where it said so.
    deaths: HashMap<u32, usize>,
    /// The lines of what made the server lose its records.
    losses: Vec<usize>,
}

impl<'a> Round<'a> {
    fn new(plan: &'a Plan, entries: &'a [Entry]) -> Self {
        let mut round = Self {
            plan,
            entries,
            deaths: HashMap::new(),
            losses: Vec::new(),
        };
        for (line, entry) in entries.iter().enumerate() {
            match entry.event {
                Event::Dies { .. } => {
                    round.deaths.entry(entry.process).or_insert(line);
                }
                Event::Killed { process } => {
                    round.deaths.entry(process).or_insert(line);
                }
                Event::Fault { loses: true, .. } => round.losses.push(line),
                _ => {}
            }
        }
        round
    }

    fn is_dead(&self, process: u32, line: usize) -> bool {
        self.deaths.get(&process).is_some_and(|death| *death < line)
    }

    fn losses_before(&self, line: usize) -> usize {
        self.losses.iter().filter(|loss| **loss < line).count()
    }

    /// Whether anything at all had gone wrong by then.
    fn is_troubled(&self, line: usize) -> bool {
        let trouble = |entry: &Entry| {
            matches!(
                entry.event,
                Event::Dies { .. } | Event::Killed { .. } | Event::Fault { .. }
            )
        };
        self.entries[..line].iter().any(trouble)
    }

    fn lives(&self, answers: &'a [Answered], rows: &'a [Row]) -> Vec<Life<'a>> {
        let keys = self.plan.keys.iter();
        let mut lives: Vec<_> = keys.map(Life::new).collect();
        let named = self.plan.keys.iter().enumerate();
        let named: HashMap<_, _> = named.map(|(at, key)| (key.name.as_str(), at)).collect();
        let mut runs: HashMap<&str, (usize, usize)> = HashMap::new();
        for (line, entry) in self.entries.iter().enumerate() {
            match &entry.event {
                Event::Began { key, token, .. } => {
                    let at = named[key.as_str()];
                    runs.insert(token, (at, lives[at].runs.len()));
                    lives[at].runs.extend(Run::new(line, entry));
                }
                Event::Ended { token } => {
                    let (at, run) = runs[token.as_str()];
                    lives[at].runs[run].ended = Some(line);
                }
                Event::Dies {
                    key, recorded: true, ..
                } => lives[named[key.as_str()]].kept_at = Some(line),
                Event::Effect { .. } | Event::Dies { .. } | Event::Killed { .. } | Event::Fault { .. } => {}
            }
        }
        for answered in answers {
            lives[answered.key].answers.push(answered);
        }
        for row in rows {
            lives[named[row.key.as_str()]].rows.push(&row.token);
        }
        lives
    }
}

/// Judges a round by its journal, by what its clients saw, and by the rows that its handlers have committed.
pub(super) fn judge(plan: &Plan, entries: &[Entry], answers: &[Answered], rows: &[Row]) -> Verdict {
    let round = Round::new(plan, entries);
    let mut verdict = Verdict::default();
    for life in round.lives(answers, rows) {
        let (documented, mut broken) = life.check_runs(&round);
        verdict.documented += documented;
        verdict.executions.push(life.executions().saturating_sub(documented));
        broken.extend(life.check_answers(&round));
        broken.extend(life.check_rows(&round));
        if !broken.is_empty() {
            verdict.violations.push(life.tell(&round, &broken));
        }
    }
    verdict
}

/// Whether a handler is at work in a process that lives.
pub(super) fn is_running(entries: &[Entry]) -> bool {
    let mut running = HashMap::new();
    let mut dead = HashSet::new();
    for entry in entries {
        match &entry.event {
            Event::Began { token, .. } => {
                running.insert(token, entry.process);
            }
            Event::Ended { token } => {
                running.remove(token);
            }
            Event::Dies { .. } => {
                dead.insert(entry.process);
            }
            Event::Killed { process } => {
                dead.insert(*process);
            }
            Event::Effect { .. } | Event::Fault { .. } => {}
        }
    }
    running.values().any(|process| !dead.contains(process))
}
