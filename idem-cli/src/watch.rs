//! `idem watch`.
//!
//! Owns the difference between two scans. A record is shown when it appears, changes its token, its state or its attempt, and when it
//! is gone. What lasts for less than the pause between two scans is not seen.

use std::collections::HashMap;
use std::time::SystemTime;

use idem_core::Token;
use idem_core::inspect::{Listed, Operator, PAGE, RecordState, RecordSummary, Selection};
use serde_json::json;

use crate::args::{StateName, Watch};
use crate::exit::{Exit, Failure};
use crate::find::selection_of;
use crate::output::{Output, records as counted};
use crate::view::{self, RecordView, time};

/// How many records can be watched. Each is kept in memory.
const MOST: usize = 200_000;

/// What is remembered of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    token: Token,
    attempt: u32,
    state: StateName,
    has_steps: bool,
}

/// What a scan has found.
#[derive(Default)]
struct Look {
    records: HashMap<String, Seen>,
    /// The records that are new or have changed since the look before.
    changed: Vec<RecordSummary>,
}

pub(crate) async fn watch(operator: &Operator, asked: &Watch, output: &mut Output) -> Result<Exit, Failure> {
    let selection = selection_of(&asked.parts)?;
    let mut before = None;
    for count in 1.. {
        let is_last = asked.looks.is_some_and(|looks| count >= looks);
        match look(operator, &selection, before.as_ref()).await {
            Ok(look) => {
                match &before {
                    Some(before) => print_changes(before, &look, output)?,
                    None => output.note(&format!("watching {}; Ctrl-C ends", counted(look.records.len() as u64))),
                }
                before = Some(look.records);
            }
            // A failover takes a while. What has changed meanwhile is printed after it.
            Err(failure) if failure.exit() == Exit::Failed && before.is_some() && !is_last => {
                output.note(&format!("{failure}; looking again"));
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
            let Listed::Record(record) = listed else { continue };
            let (name, seen) = (record.key.to_string(), Seen::of(&record));
            let is_same = before.is_none_or(|before| before.get(&name) == Some(&seen));
            // A scan may return a record twice.
            let is_first = look.records.insert(name, seen) != Some(seen);
            if !is_same && is_first {
                look.changed.push(record);
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
    for record in &look.changed {
        print(record, before.get(record.key.as_str()), output)?;
    }
    for (name, seen) in before {
        if !look.records.contains_key(name) {
            print_gone(name, *seen, output)?;
        }
    }
    Ok(())
}

impl Seen {
    fn of(record: &RecordSummary) -> Self {
        Self {
            token: record.token,
            attempt: record.attempt,
            state: view::state_of(record),
            has_steps: matches!(record.state, RecordState::Claimed { has_steps: true, .. }),
        }
    }
}

fn print(record: &RecordSummary, was: Option<&Seen>, output: &mut Output) -> Result<(), Failure> {
    let at = time(SystemTime::now());
    if output.is_json {
        let view = RecordView::of(record, output);
        return output.json(&json!({ "at": at, "was": was.map(|was| was.state.name()), "record": view }));
    }
    let was = was.map_or("-", |was| was.state.name());
    let state = view::state_of(record).name();
    let (attempt, owner) = (record.attempt, record.owner.as_str());
    output.line(&format!(
        "{at}  {was} -> {state}  attempt {attempt}  {owner}  {}",
        output.key(&record.key)
    ))
}

fn print_gone(name: &str, seen: Seen, output: &mut Output) -> Result<(), Failure> {
    let at = time(SystemTime::now());
    let shown = idem_core::RecordKey::from_encoded(name).map_or_else(|| name.to_owned(), |key| output.key(&key));
    if output.is_json {
        return output.json(&json!({ "at": at, "was": seen.state.name(), "gone": shown }));
    }
    output.line(&format!("{at}  {} -> gone  {shown}", seen.state.name()))
}
