//! What the journal tells: who ran, who died, and what the server lost.
//!
//! Owns no rule.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::Duration;

use crate::lab::journal::{Entry, Event};

/// One execution of a handler or a task.
#[derive(Debug)]
pub(in crate::lab) struct Run<'a> {
    pub(in crate::lab) process: u32,
    pub(in crate::lab) request: &'a str,
    pub(in crate::lab) order: &'a str,
    pub(in crate::lab) attempt: u32,
    pub(in crate::lab) token: &'a str,
    /// Its lines in the journal.
    pub(in crate::lab) began: usize,
    pub(in crate::lab) effect: Option<usize>,
    pub(in crate::lab) ended: Option<usize>,
    /// Whether it ended without an effect, and asked to be run again.
    pub(in crate::lab) is_released: bool,
    /// When it began and ended.
    pub(in crate::lab) began_at: Duration,
    pub(in crate::lab) ended_at: Option<Duration>,
}

impl<'a> Run<'a> {
    fn new(line: usize, entry: &'a Entry) -> Option<Self> {
        match &entry.event {
            Event::Began {
                request,
                order,
                attempt,
                token,
                ..
            } => Some(Self {
                process: entry.process,
                request,
                order,
                attempt: *attempt,
                token,
                began: line,
                effect: None,
                ended: None,
                is_released: false,
                began_at: entry.at,
                ended_at: None,
            }),
            _ => None,
        }
    }

    fn end(&mut self, line: usize, entry: &Entry) {
        self.ended = Some(line);
        self.ended_at = Some(entry.at);
    }
}

/// The runs of each key, in the order in which they began.
pub(in crate::lab) fn runs_by_key(entries: &[Entry]) -> BTreeMap<&str, Vec<Run<'_>>> {
    let mut runs: BTreeMap<&str, Vec<Run<'_>>> = BTreeMap::new();
    let mut places: HashMap<&str, (&str, usize)> = HashMap::new();
    for (line, entry) in entries.iter().enumerate() {
        if let Event::Began { key, token, .. } = &entry.event {
            let of_key = runs.entry(key).or_default();
            places.insert(token, (key, of_key.len()));
            of_key.extend(Run::new(line, entry));
        }
        let (Event::Effect { token } | Event::Ended { token } | Event::Released { token }) = &entry.event else {
            continue;
        };
        let run = places
            .get(token.as_str())
            .and_then(|(key, place)| runs.get_mut(key)?.get_mut(*place));
        let run = run.expect("what ends has begun");
        match entry.event {
            Event::Effect { .. } => run.effect = Some(line),
            Event::Released { .. } => {
                run.is_released = true;
                run.end(line, entry);
            }
            _ => run.end(line, entry),
        }
    }
    runs
}

/// What was done to processes and servers.
#[derive(Debug)]
pub(in crate::lab) struct Harm<'a> {
    entries: &'a [Entry],
    /// Of each dead process, the line where it said so.
    deaths: HashMap<u32, usize>,
    /// The lines of what made the server lose its records.
    losses: Vec<usize>,
}

impl<'a> Harm<'a> {
    pub(in crate::lab) fn new(entries: &'a [Entry]) -> Self {
        let (mut deaths, mut losses) = (HashMap::new(), Vec::new());
        for (line, entry) in entries.iter().enumerate() {
            match entry.event {
                Event::Dies { .. } => {
                    deaths.entry(entry.process).or_insert(line);
                }
                Event::Killed { process } => {
                    deaths.entry(process).or_insert(line);
                }
                Event::Fault { loses: true, .. } => losses.push(line),
                _ => {}
            }
        }
        Self {
            entries,
            deaths,
            losses,
        }
    }

    /// Whether a process had died by then.
    pub(in crate::lab) fn is_dead(&self, process: u32, line: usize) -> bool {
        self.deaths.get(&process).is_some_and(|death| *death < line)
    }

    /// Whether a process dies at all.
    pub(in crate::lab) fn dies(&self, process: u32) -> bool {
        self.deaths.contains_key(&process)
    }

    /// How often the server loses its records.
    pub(in crate::lab) fn losses(&self) -> usize {
        self.losses.len()
    }

    pub(in crate::lab) fn losses_before(&self, line: usize) -> usize {
        self.losses.iter().filter(|loss| **loss < line).count()
    }

    /// Whether anything at all had gone wrong by then.
    pub(in crate::lab) fn is_troubled(&self, line: usize) -> bool {
        let trouble = |entry: &Entry| {
            matches!(
                entry.event,
                Event::Dies { .. } | Event::Killed { .. } | Event::Fault { .. }
            )
        };
        self.entries[..line].iter().any(trouble)
    }

    /// The lines about a key and its runs, and all that went wrong meanwhile, for readers.
    pub(in crate::lab) fn tell(&self, told: &mut String, named: &str, runs: &[Run<'_>]) {
        let begun = self.entries.first().map(|entry| entry.at).unwrap_or_default();
        for entry in self.entries {
            let is_ours = match &entry.event {
                Event::Began { key, .. }
                | Event::Acknowledged { key }
                | Event::SetAside { key }
                | Event::Settles { key, .. }
                | Event::Settled { key, .. } => key == named,
                Event::Effect { token } | Event::Ended { token } | Event::Released { token } => {
                    runs.iter().any(|run| run.token == token)
                }
                Event::Dies { .. } | Event::Killed { .. } | Event::Fault { .. } => true,
            };
            if is_ours {
                let at = entry.at.saturating_sub(begun).as_millis();
                let _ = writeln!(told, "{at:>8} ms  process {}  {:?}", entry.process, entry.event);
            }
        }
    }
}
