//! The rules of a key whose record an operator settles.
//!
//! | rule | what holds |
//! |---|---|
//! | IDEM-1, IDEM-2 | there are no more runs than one, and one for each death of a run's process, each loss of the records, and each settlement that let the request run again, or may have |
//! | settled | no run begins after an operator was told that the record has an outcome, until a settlement or a loss removes it |
//! | IDEM-2 | two answers of one run are the same, and so are two answers of an operator |
//! | IDEM-9 | an answer is that of a run of this key, or of an operator |

use std::collections::HashMap;

use super::Round;
use super::key::{Broken, Life};
use crate::lab::journal::Event;
use crate::lab::load::{Created, Got};
use crate::lab::operator::OPERATOR;
use crate::lab::plan::Change;

impl Life<'_> {
    pub(super) fn check_operated(&self, round: &Round<'_>) -> Vec<Broken> {
        let mut broken = Vec::new();
        let reopenings = self.reopenings(round);
        let allowed = 1 + round.harm.losses() + reopenings.len() + self.deaths(round);
        if self.runs.len() > allowed {
            let what = format!("{} runs, and {allowed} are explained", self.runs.len());
            broken.push(("IDEM-2", what));
        }
        broken.extend(self.check_outcomes(round, &reopenings));
        broken.extend(self.check_answers_of_operated());
        broken
    }

    /// How many runs may have been followed by another attempt, because their process died or could not record their outcome.
    fn deaths(&self, round: &Round<'_>) -> usize {
        let may_be_followed = |run: &&super::Run<'_>| round.harm.dies(run.process) || run.effect.is_none();
        self.runs.iter().filter(may_be_followed).count()
    }

    /// The lines at which an operator began to let the request run again, and was not told that nothing was changed.
    fn reopenings(&self, round: &Round<'_>) -> Vec<usize> {
        let mut lines = HashMap::new();
        for (line, entry) in round.entries.iter().enumerate() {
            match &entry.event {
                Event::Settles {
                    key,
                    change: Change::Forget | Change::Rerun,
                    number,
                } if *key == self.key.name => {
                    lines.insert(*number, line);
                }
                Event::Settled {
                    key,
                    number,
                    is_applied: false,
                } if *key == self.key.name => {
                    lines.remove(number);
                }
                _ => {}
            }
        }
        lines.into_values().collect()
    }

    /// Each outcome that an operator was told to be recorded.
    fn check_outcomes(&self, round: &Round<'_>, reopenings: &[usize]) -> Vec<Broken> {
        let mut completing = HashMap::new();
        let mut broken = Vec::new();
        for (line, entry) in round.entries.iter().enumerate() {
            match &entry.event {
                Event::Settles {
                    key,
                    change: Change::Complete,
                    number,
                } if *key == self.key.name => {
                    completing.insert(*number, line);
                }
                Event::Settled {
                    key,
                    number,
                    is_applied: true,
                } if *key == self.key.name => {
                    let Some(began) = completing.get(number) else { continue };
                    let is_removed = reopenings.iter().any(|reopening| reopening > began);
                    let is_lost = round.harm.losses() > round.harm.losses_before(*began);
                    // A settlement that was on its way before may take effect late.
                    let is_reopened_late = reopenings.iter().any(|reopening| reopening < began);
                    let later = self.runs.iter().find(|run| run.began > line);
                    if let Some(run) = later.filter(|_| !is_removed && !is_lost && !is_reopened_late) {
                        broken.push((
                            "settled",
                            format!("{} ran though an operator gave an outcome", run.token),
                        ));
                    }
                }
                _ => {}
            }
        }
        broken
    }

    fn check_answers_of_operated(&self) -> Vec<Broken> {
        let mut broken = Vec::new();
        let mut first_seen: HashMap<&str, &Created> = HashMap::new();
        for answered in &self.answers {
            let said = |what: &str| format!("{} got {}: {what}", answered.request, answered.got.name());
            match &answered.got {
                Got::Created(created) => {
                    let same = first_seen.entry(&created.token).or_insert(created);
                    if same.answer != created.answer {
                        broken.push(("IDEM-2", said("it differs from another answer of the same run")));
                    }
                    let is_of_run = self.runs.iter().any(|run| run.token == created.token);
                    if !is_of_run && !created.token.starts_with(OPERATOR) {
                        broken.push(("IDEM-9", said("no run of this key, and no operator")));
                    }
                    if !is_of_run && !created.is_replay {
                        broken.push(("IDEM-2", said("an operator's answer is replayed")));
                    }
                }
                Got::Hung => broken.push(("IDEM-4", said("it was never answered"))),
                Got::Mismatch => broken.push(("IDEM-3", said("it was the same request"))),
                Got::Other(what) => broken.push(("IDEM-11", said(what))),
                _ => {}
            }
        }
        broken
    }
}
