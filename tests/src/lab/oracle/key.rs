//! The life of one key: its runs, its answers, and the rules they keep.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::{Round, Run};
use crate::lab::load::{Answered, Created, Got};
use crate::lab::plan::{Key, Route};

/// All that is known of one key.
#[derive(Debug)]
pub(super) struct Life<'a> {
    pub(super) key: &'a Key,
    pub(super) runs: Vec<Run<'a>>,
    pub(super) answers: Vec<&'a Answered>,
    /// The line at which a process died with an answer that was recorded.
    pub(super) kept_at: Option<usize>,
    /// The tokens of the runs that were committed.
    pub(super) rows: Vec<&'a str>,
}

/// A rule that was broken, and how.
pub(super) type Broken = (&'static str, String);

impl<'a> Life<'a> {
    pub(super) fn new(key: &'a Key, runs: Vec<Run<'a>>) -> Self {
        Self {
            key,
            runs,
            answers: Vec::new(),
            kept_at: None,
            rows: Vec::new(),
        }
    }

    /// The rules about who runs when; and how many runs there were that the loss of a record explains.
    pub(super) fn check_runs(&self, round: &Round<'_>) -> (usize, Vec<Broken>) {
        let mut broken = Vec::new();
        let mut documented = 0;
        let refuses = self.key.route == Route::Refusing;
        for (number, run) in self.runs.iter().enumerate() {
            if run.order != self.key.task.order {
                broken.push(("IDEM-3", format!("{} ran for another request", run.token)));
            }
            if run.ended.is_none() && !round.harm.dies(run.process) {
                broken.push(("IDEM-5", format!("{} never ended, and its process lives", run.token)));
            }
            let Some(before) = number.checked_sub(1).map(|before| &self.runs[before]) else {
                if run.attempt != 1 && !round.harm.is_troubled(run.began) {
                    broken.push(("IDEM-7", format!("the first run is attempt {}", run.attempt)));
                }
                continue;
            };
            let losses = round.harm.losses_before(run.began);
            let has_died = round.harm.is_dead(before.process, run.began) && !self.was_stored(before);
            if self.is_undone(before) && before.ended.is_some_and(|ended| ended < run.began) {
                // It is as if it had not run, and its claim was released or has lapsed.
            } else if has_died && !refuses {
                if losses == 0 && run.attempt <= before.attempt {
                    let what = format!("attempt {} came after attempt {}", run.attempt, before.attempt);
                    broken.push(("IDEM-7", what));
                }
            } else if losses > documented {
                documented += 1;
            } else if has_died {
                broken.push(("IDEM-7", format!("{} ran again, which was refused", run.token)));
            } else if before.ended.is_none_or(|ended| ended > run.began) {
                broken.push(("IDEM-1", format!("{} ran beside {}", run.token, before.token)));
            } else {
                broken.push(("IDEM-2", format!("{} ran after {} had ended", run.token, before.token)));
            }
        }
        if let (true, Some(kept), Some(last)) = (round.plan.keeps, self.kept_at, self.runs.last())
            && last.began > kept
        {
            broken.push(("IDEM-2", format!("{} ran though an answer was recorded", last.token)));
        }
        (documented, broken)
    }

    /// The rules about what clients see.
    pub(super) fn check_answers(&self, round: &Round<'_>) -> Vec<Broken> {
        let mut broken = Vec::new();
        let mut first_seen: HashMap<&str, &Created> = HashMap::new();
        for answered in &self.answers {
            let said = |what: &str| format!("{} got {}: {what}", answered.request, answered.got.name());
            match &answered.got {
                Got::Created(_) | Got::InFlight if answered.is_probe => {
                    broken.push(("IDEM-3", said("it was another request")));
                }
                Got::Created(created) => {
                    let same = first_seen.entry(&created.token).or_insert(created);
                    if same.answer != created.answer {
                        broken.push(("IDEM-2", said("it differs from another answer of the same run")));
                    }
                    broken.extend(self.check_created(round, &answered.request, created));
                }
                Got::OutcomeUnknown if self.key.route != Route::Refusing => {
                    broken.push(("IDEM-7", said("its handler runs again after a crash")));
                }
                Got::OutcomeUnknown if round.plan.keeps && self.runs.iter().any(|run| self.was_stored(run)) => {
                    broken.push(("IDEM-7", said("its outcome is known")));
                }
                Got::OutcomeUnknown if round.plan.keeps && self.all_live(round) => {
                    broken.push((
                        "IDEM-13",
                        said("it ran in a process that lives, and should be recorded"),
                    ));
                }
                Got::Mismatch if round.plan.keeps && !answered.is_probe => {
                    broken.push(("IDEM-3", said("it was the same request")));
                }
                Got::NotStored | Got::RolledBack | Got::NotCommitted | Got::Undone => {
                    broken.extend(self.check_unkept(answered));
                }
                Got::Hung => broken.push(("IDEM-4", said("it was never answered"))),
                Got::Other(what) => broken.push(("IDEM-11", said(what))),
                Got::InFlight | Got::OutcomeUnknown | Got::Mismatch | Got::Unavailable | Got::Lost | Got::Left => {}
            }
            if !self.may_have_run(round, answered) && self.ran_for(&answered.request) {
                broken.push(("IDEM-13", said("it ran all the same")));
            }
        }
        broken
    }

    fn check_created(&self, round: &Round<'_>, request: &str, created: &Created) -> Option<Broken> {
        let said = |what: &str| format!("{request} got a 201 of {}: {what}", created.token);
        let Some(run) = self.runs.iter().find(|run| run.token == created.token) else {
            return Some(("IDEM-9", said("no run of this key")));
        };
        if run.ended.is_none() {
            return Some(("IDEM-2", said("that run has not ended")));
        }
        if created.is_replay == (run.request == request) || created.is_replay && self.ran_for(request) {
            return Some((
                "IDEM-2",
                said("a replay is of another request's run, and nothing else is"),
            ));
        }
        let is_last = self.runs.last().is_some_and(|last| last.token == run.token);
        if round.plan.keeps && created.is_stored && !is_last {
            return Some(("IDEM-8", said("it was stored, and then superseded")));
        }
        None
    }

    /// Whether an answer allows that the request ran.
    fn may_have_run(&self, round: &Round<'_>, answered: &Answered) -> bool {
        match answered.got {
            Got::Created(_) | Got::RolledBack | Got::NotCommitted | Got::Undone | Got::Lost | Got::Left | Got::Hung => {
                true
            }
            // Another one had taken over after a loss, and it was rolled back for that.
            Got::InFlight => !round.plan.keeps && !self.has_row_for(&answered.request) && self.has_rows(),
            _ => false,
        }
    }

    fn ran_for(&self, request: &str) -> bool {
        self.runs_for(request).next().is_some()
    }

    pub(super) fn runs_for<'b>(&'b self, request: &'b str) -> impl Iterator<Item = &'b Run<'a>> {
        self.runs.iter().filter(move |run| run.request == request)
    }

    /// Whether it ran, and in no process that has died.
    fn all_live(&self, round: &Round<'_>) -> bool {
        let has_died = |run: &Run<'_>| round.harm.dies(run.process);
        !self.runs.is_empty() && !self.runs.iter().any(has_died)
    }

    /// Whether somebody got an answer of a run that was recorded.
    fn was_stored(&self, run: &Run<'_>) -> bool {
        let of_it = |created: &Created| created.is_stored && created.token == run.token;
        let stored = |answered: &&Answered| matches!(&answered.got, Got::Created(created) if of_it(created));
        self.answers.iter().any(stored)
    }

    /// What was broken, with all that is known of the key.
    pub(super) fn tell(&self, round: &Round<'_>, broken: &[Broken]) -> String {
        let mut told = format!(
            "seed {}, key {}, {:?}:\n",
            round.plan.seed, self.key.name, self.key.route
        );
        for (rule, what) in broken {
            let _ = writeln!(told, "  {rule}: {what}");
        }
        let _ = writeln!(told, "its journal, and what went wrong meanwhile:");
        round.harm.tell(&mut told, &self.key.name, &self.runs);
        if self.has_rows() {
            let _ = writeln!(told, "its rows: {:?}", self.rows);
        }
        let _ = writeln!(told, "its answers:");
        for answered in &self.answers {
            let of = match &answered.got {
                Got::Created(created) => created.token.as_str(),
                _ => "",
            };
            let _ = writeln!(told, "  {}  {} {of}", answered.request, answered.got.name());
        }
        told
    }
}
