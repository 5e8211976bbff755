//! The rules about what was done in transactions: rows, records and answers are one.

use super::key::{Broken, Life};
use super::{Round, Run};
use crate::lab::load::{Answered, Got};
use crate::lab::plan::Route;

impl Life<'_> {
    /// Whether its effects are rows.
    pub(super) fn has_rows(&self) -> bool {
        self.key.route == Route::Transacting
    }

    /// Whether a run was rolled back, so that it has done nothing.
    pub(super) fn is_undone(&self, run: &Run<'_>) -> bool {
        self.has_rows() && !self.rows.contains(&run.token)
    }

    /// Whether a run for this request was committed.
    pub(super) fn has_row_for(&self, request: &str) -> bool {
        self.has_rows() && self.runs_for(request).any(|run| !self.is_undone(run))
    }

    /// How many runs may have had their effect.
    pub(super) fn executions(&self) -> usize {
        self.runs.iter().filter(|run| !self.is_undone(run)).count()
    }

    /// The rules about an answer that says that something was not kept: the answer itself, or the effect.
    pub(super) fn check_unkept(&self, answered: &Answered) -> Option<Broken> {
        let said = |what: &str| format!("{} got {}: {what}", answered.request, answered.got.name());
        match answered.got {
            Got::NotStored if self.key.task.padding == 0 => Some(("IDEM-12", said("its answer is small"))),
            Got::NotStored => None,
            _ if !self.has_rows() => Some(("IDEM-17", said("its handler has no transaction"))),
            Got::RolledBack | Got::Undone if self.has_row_for(&answered.request) => {
                Some(("IDEM-17", said("its row is there")))
            }
            _ => None,
        }
    }

    /// The rules about rows.
    pub(super) fn check_rows(&self, round: &Round<'_>) -> Vec<Broken> {
        let mut broken = Vec::new();
        if !self.has_rows() {
            return broken;
        }
        let most = if round.plan.keeps { 1 } else { 1 + round.harm.losses() };
        if self.rows.len() > most {
            broken.push(("IDEM-2", format!("it has {} rows: {:?}", self.rows.len(), self.rows)));
        }
        let mut answered = Vec::new();
        for answer in &self.answers {
            if let Got::Created(created) = &answer.got {
                answered.push(created.token.as_str());
            }
        }
        for token in &answered {
            if !self.rows.contains(token) {
                broken.push((
                    "IDEM-16",
                    format!("{token} was answered with 201, and its row is not there"),
                ));
            }
        }
        for row in &self.rows {
            // Every client asks until it is answered, the last one when all is well.
            if round.plan.keeps && !answered.contains(row) {
                broken.push((
                    "IDEM-16",
                    format!("the row of {row} is there, and no client was told of it"),
                ));
            }
        }
        broken
    }
}
