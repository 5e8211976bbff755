//! What came of a siege, as numbers and as a picture.
//!
//! Owns what is counted, what must be true of it, and how it looks. Does not own how it came about.

use std::collections::BTreeMap;
use std::fmt;

use crate::carrier::Ledger;
use crate::journal::{End, Entry, What, cut_off, deliveries};

/// How many characters the longest bar has.
const WIDTH: usize = 50;

/// What came of a siege.
#[derive(Clone, Debug)]
pub struct Figures {
    /// How many orders were placed.
    pub messages: usize,
    /// How many of them go to an address that does not exist.
    pub to_nowhere: usize,
    /// How often one was delivered, the replay excepted.
    pub deliveries: u64,
    /// How many were delivered in the replay.
    pub replayed: u64,
    /// How many processes were killed.
    pub kills: usize,
    /// How often the carrier was called in the replay.
    pub calls_in_replay: usize,
    /// What the carrier has done.
    pub ledger: Ledger,
    /// What the processes have said, those of the replay excepted.
    pub entries: Vec<Entry>,
    /// How many messages were set aside.
    pub aside: usize,
}

impl Figures {
    /// How many deliveries began and did not end, because their process was killed.
    #[must_use]
    pub fn cut_off(&self) -> usize {
        let is_end = |what| matches!(what, What::Ended(_));
        cut_off(&self.entries, |what| what == What::Began, is_end)
    }

    /// How many deliveries were done without the broker being told.
    #[must_use]
    pub fn lost_acks(&self) -> usize {
        let is_done = |what| matches!(what, What::Ended(End::Acknowledge | End::SetAside));
        cut_off(&self.entries, is_done, |what| what == What::Told)
    }

    /// What is not as it must be.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let twice = self.ledger.shipped_more_than_once();
        let rules = [
            (twice == 0, format!("{twice} orders were shipped more than once")),
            (
                self.ledger.shipments() == self.messages - self.to_nowhere,
                format!("{} orders were shipped", self.ledger.shipments()),
            ),
            (
                self.aside == self.to_nowhere,
                format!("{} orders were set aside", self.aside),
            ),
            (
                self.replayed == self.messages as u64,
                format!("{} messages were replayed", self.replayed),
            ),
            (
                self.calls_in_replay == 0,
                format!("the replay has called the carrier {} times", self.calls_in_replay),
            ),
            (
                self.ledger.repeated_calls() <= self.cut_off(),
                format!(
                    "the carrier got {} calls again, and kills cut off {} deliveries",
                    self.ledger.repeated_calls(),
                    self.cut_off()
                ),
            ),
        ];
        let broken = rules.into_iter().filter(|(holds, _)| !holds);
        broken.map(|(_, fault)| fault).collect()
    }

    /// How many orders have had each number of shipments.
    fn shipments(&self) -> BTreeMap<u64, usize> {
        let by_order = self.ledger.by_order();
        let none = self.messages.saturating_sub(by_order.len());
        let mut counts = BTreeMap::new();
        if none > 0 {
            counts.insert(0, none);
        }
        for times in by_order.into_values() {
            *counts.entry(times as u64).or_default() += 1;
        }
        counts
    }

    /// How many messages have had each number of deliveries.
    fn deliveries(&self) -> BTreeMap<u64, usize> {
        let mut counts = BTreeMap::new();
        for times in deliveries(&self.entries).into_values() {
            *counts.entry(times).or_default() += 1;
        }
        counts
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let again = self.deliveries.saturating_sub(self.messages as u64);
        let lines = [
            ("messages", self.messages, String::new()),
            ("deliveries", count(self.deliveries), format!("{again} of them again")),
            (
                "kills",
                self.kills,
                format!("they cut off {} deliveries", self.cut_off()),
            ),
            ("lost acknowledgements", self.lost_acks(), String::new()),
            (
                "calls to the carrier",
                self.ledger.calls(),
                format!("{} of them again, after a kill", self.ledger.repeated_calls()),
            ),
            ("shipments", self.ledger.shipments(), String::new()),
            ("shipped twice", self.ledger.shipped_more_than_once(), String::new()),
            ("set aside", self.aside, "there is no such address".to_owned()),
            (
                "replayed",
                count(self.replayed),
                format!("{} calls to the carrier", self.calls_in_replay),
            ),
        ];
        for (label, number, more) in lines {
            writeln!(f, "{}", format!("{label:<22} {number:>6}   {more}").trim_end())?;
        }
        bars(f, "deliveries of a message", &self.deliveries())?;
        bars(f, "shipments of an order", &self.shipments())
    }
}

/// For people; no run has more than fits.
fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn bars(f: &mut fmt::Formatter<'_>, title: &str, counts: &BTreeMap<u64, usize>) -> fmt::Result {
    writeln!(f, "\n{title}")?;
    let most = counts.values().copied().max().unwrap_or_default().max(1);
    for (times, count) in counts {
        // Also one of a thousand can be seen.
        let bar = "█".repeat((count * WIDTH / most).max(1));
        writeln!(f, "{times:>4} × {bar} {count}")?;
    }
    Ok(())
}
