//! What came of the siege, as a table.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::costs::Costs;
use super::crowd::Crowds;
use super::hostile::{Attack, Ends};
use super::tenant::Seen;
use crate::lab::server::Backend;

/// How many of the violations are printed.
const SHOWN: usize = 20;

/// What a siege came to.
#[derive(Debug)]
pub struct Report {
    pub(super) backend: Backend,
    pub(super) crowds: Crowds,
    pub(super) alone: Seen,
    pub(super) besieged: Seen,
    pub(super) attacks: BTreeMap<Attack, Ends>,
    pub(super) costs: Costs,
    /// Each in a line.
    pub violations: Vec<String>,
}

impl Report {
    pub(super) fn judge(&mut self, connections: u64, executed_again: &[String]) {
        let errors = self.alone.errors.iter().chain(&self.besieged.errors);
        self.violations
            .extend(errors.map(|error| format!("the tenant: {error}")));
        self.violations.extend(self.crowds.errors.iter().cloned());
        self.violations.extend(executed_again.iter().cloned());
        if self.costs.connections > connections {
            let seen = self.costs.connections;
            self.violations.push(format!("{seen} connections to the server"));
        }
        for (attack, ends) in &self.attacks {
            if ends.is_empty() {
                self.violations.push(format!("nobody came to {}", attack.name()));
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "siege of a service on {}", self.backend.name())?;
        write!(f, "{}", self.crowds)?;
        for (attack, ends) in &self.attacks {
            writeln!(f, "{}", attack.name())?;
            for (end, count) in ends.counts() {
                writeln!(f, "  {end:<40}{count:>8}")?;
            }
        }
        for (when, seen) in [("alone", &self.alone), ("besieged", &self.besieged)] {
            writeln!(f, "the tenant, {when}")?;
            writeln!(f, "  {:<40}{:>8}", "orders", seen.orders.len())?;
            writeln!(f, "  {:<40}{:>8}", "errors", seen.errors.len())?;
            for (what, times) in [("first answers", &seen.orders), ("replays", &seen.replays)] {
                let (median, slow) = (share(times, 50), share(times, 99));
                writeln!(f, "  {:<40}{median:>8.1}{slow:>8.1} ms", format!("{what}, p50 and p99"))?;
            }
        }
        writeln!(
            f,
            "{:<42}{:>8} MiB",
            "memory of the process, at most",
            self.costs.memory >> 20
        )?;
        writeln!(
            f,
            "{:<42}{:>8}",
            "connections to the server, at most", self.costs.connections
        )?;
        if let Some(memory) = self.costs.server_memory {
            writeln!(f, "{:<42}{:>8} MiB", "memory of the server, at most", memory >> 20)?;
        }
        writeln!(f, "{:<42}{:>8}", "rule violations", self.violations.len())?;
        for violation in self.violations.iter().take(SHOWN) {
            writeln!(f, "{violation}")?;
        }
        Ok(())
    }
}

/// The time that so many of a hundred did not take longer than, in milliseconds.
pub(super) fn share(times: &[Duration], hundredths: usize) -> f64 {
    let at = times.len() * hundredths / 100;
    times
        .get(at.min(times.len().saturating_sub(1)))
        .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}
