//! `idem watch`.
//!
//! Owns the difference between two scans. A record is shown when it appears, changes its token, its state or its attempt, and when it
//! is gone. What lasts for less than the pause between two scans is not seen.

use std::collections::HashMap;
use std::time::SystemTime;

use idem_core::Token;
use idem_core::inspect::{Listed, Operator, PAGE, Selection};
use serde_json::json;

use crate::args::{StateName, Watch};
use crate::exit::{Exit, Failure};
use crate::find::selection_of;
use crate::output::{Output, records as counted};
use crate::view::{self, time};

/// How many records can be watched. Each is kept in memory.
const MOST: usize = 200_000;

/// What is remembered of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    token: Option<Token>,
    attempt: u32,
    state: StateName,
    has_steps: bool,
}

/// What a scan has found.
#[derive(Default)]
struct Look {
    records: HashMap<String, Seen>,
    /// The records that are new or have changed since the look before.
    changed: Vec<Listed>,
}

pub(crate) async fn watch(operator: &Operator, asked: &Watch, output: &mut Output) -> Result<Exit, Failure> {
    let selection = selection_of(&asked.parts)?;
    let mut before = None;
    let mut last_failure = String::new();
    for count in 1.. {
        let is_last = asked.looks.is_some_and(|looks| count >= looks);
        match look(operator, &selection, before.as_ref()).await {
            Ok(look) => {
                match &before {
                    Some(before) => print_changes(before, &look, output)?,
                    None => output.note(&format!("watching {}; Ctrl-C ends", counted(look.records.len() as u64))),
                }
                before = Some(look.records);
                last_failure.clear();
            }
            // A failover takes a while. What has changed meanwhile is printed after it.
            Err(failure) if failure.exit() == Exit::Failed && before.is_some() && !is_last => {
                // Once, however often it is looked at.
                let failure = failure.to_string();
                if failure != last_failure {
                    output.note(&format!("{failure}; looking again"));
                    last_failure = failure;
                }
            }
            Err(failure) => return Err(failure),
        }
        if is_last || output.is_closed() {
            break;
        }
        tokio::time::sleep(asked.every).await;
    }
    Ok(Exit::Done)
}

/// Scans once. Nothing is printed before the scan is over, because a scan that fails is done again.
async fn look(
    operator: &Operator,
    selection: &Selection,
    before: Option<&HashMap<String, Seen>>,
) -> Result<Look, Failure> {
    let mut look = Look::default();
    let mut next = None;
    loop {
        let page = operator.scan(selection, next.as_ref(), PAGE).await?;
        for listed in page.records {
            let (name, seen) = (listed.name().to_owned(), Seen::of(&listed));
            let is_same = before.is_none_or(|before| before.get(&name) == Some(&seen));
            // A scan may return a record twice.
            let is_first = look.records.insert(name, seen) != Some(seen);
            if !is_same && is_first {
                look.changed.push(listed);
            }
            if look.records.len() > MOST {
                return Err(Failure::usage(format!(
                    "more than {MOST} records are selected; watch fewer of them"
                )));
            }
        }
        next = page.next;
        if next.is_none() {
            return Ok(look);
        }
    }
}

fn print_changes(before: &HashMap<String, Seen>, look: &Look, output: &mut Output) -> Result<(), Failure> {
    for listed in &look.changed {
        print(listed, before.get(listed.name()), output)?;
    }
    for (name, seen) in before {
        if !look.records.contains_key(name) {
            print_gone(name, *seen, output)?;
        }
    }
    Ok(())
}

impl Seen {
    fn of(listed: &Listed) -> Self {
        match listed {
            Listed::Record(record) => Self {
                token: Some(record.token),
                attempt: record.attempt,
                state: view::state_of(record),
                has_steps: record.state.has_steps(),
            },
            Listed::Unreadable(unreadable) => Self {
                token: unreadable.version.map(|version| version.token),
                attempt: 0,
                state: StateName::Unreadable,
                has_steps: false,
            },
        }
    }
}

fn print(listed: &Listed, was: Option<&Seen>, output: &mut Output) -> Result<(), Failure> {
    let at = time(SystemTime::now());
    if output.is_json {
        let record = view::json(listed, output);
        return output.json(&json!({ "at": at, "was": was.map(|was| was.state.name()), "record": record }));
    }
    let was = was.map_or("-", |was| was.state.name());
    let (state, name) = (Seen::of(listed).state.name(), output.name(listed.name()));
    let by = match listed {
        Listed::Record(record) => format!("attempt {}  {}  ", record.attempt, record.owner.as_str()),
        Listed::Unreadable(_) => String::new(),
    };
    output.line(&format!("{at}  {was} -> {state}  {by}{name}"))
}

fn print_gone(name: &str, seen: Seen, output: &mut Output) -> Result<(), Failure> {
    let at = time(SystemTime::now());
    let shown = output.name(name);
    if output.is_json {
        return output.json(&json!({ "at": at, "was": seen.state.name(), "gone": shown }));
    }
    output.line(&format!("{at}  {} -> gone  {shown}", seen.state.name()))
}
