//! Judges what happened to each key by the rules of `docs/semantics.md`.
//!
//! Owns the rules, and nothing else: what ran is in the journal, what clients saw in their answers, what was done in
//! transactions in the ledger, and neither the server nor the engine is asked what it believes.

mod key;
mod operated;
mod rows;
mod runs;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use self::key::Life;
pub(super) use self::runs::{Harm, Run, runs_by_key};
use super::journal::{Entry, Event};
use super::ledger::Row;
use super::load::Answered;
use super::plan::{Key, Plan, Route};

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
    harm: Harm<'a>,
    entries: &'a [Entry],
}

impl<'a> Round<'a> {
    fn new(plan: &'a Plan, entries: &'a [Entry]) -> Self {
        let harm = Harm::new(entries);
        Self { plan, harm, entries }
    }

    fn lives(&self, answers: &'a [Answered], rows: &'a [Row]) -> Vec<Life<'a>> {
        let mut runs = runs_by_key(self.entries);
        let with_runs = |key: &'a Key| Life::new(key, runs.remove(key.name.as_str()).unwrap_or_default());
        let mut lives: Vec<_> = self.plan.keys.iter().map(with_runs).collect();
        let named = self.plan.keys.iter().enumerate();
        let named: HashMap<_, _> = named.map(|(at, key)| (key.name.as_str(), at)).collect();
        for (line, entry) in self.entries.iter().enumerate() {
            if let Event::Dies {
                key, recorded: true, ..
            } = &entry.event
            {
                lives[named[key.as_str()]].kept_at = Some(line);
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
        if life.key.route == Route::Operated {
            broken = life.check_operated(&round);
        } else {
            broken.extend(life.check_answers(&round));
            broken.extend(life.check_rows(&round));
        }
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
            Event::Ended { token } | Event::Released { token } => {
                running.remove(token);
            }
            Event::Dies { .. } => {
                dead.insert(entry.process);
            }
            Event::Killed { process } => {
                dead.insert(*process);
            }
            Event::Effect { .. }
            | Event::Fault { .. }
            | Event::Acknowledged { .. }
            | Event::SetAside { .. }
            | Event::Settles { .. }
            | Event::Settled { .. } => {}
        }
    }
    running.values().any(|process| !dead.contains(process))
}
