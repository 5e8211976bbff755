//! `idem watch`.
//!
//! Owns the difference between two scans. A record is shown when it appears, changes its version, its state or its attempt, and when it
//! is gone. What lasts for less than the pause between two scans is not seen.

use std::collections::HashMap;
use std::time::SystemTime;

use idem_core::inspect::{Listed, Operator, PAGE, RecordSummary, RecordVersion, Selection};
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
    version: RecordVersion,
    state: StateName,
    has_steps: bool,
}

pub(crate) async fn watch(operator: &Operator, asked: &Watch, output: &mut Output) -> Result<Exit, Failure> {
    let selection = selection_of(&asked.parts)?;
    let mut before = None;
    for look in 1.. {
        let now = match look_at(operator, &selection, before.as_ref(), output).await {
            // A failover takes a while. What has changed meanwhile is printed after it.
            Err(failure) if failure.exit() == Exit::Failed && before.is_some() => {
                output.note(&format!("{failure}; looking again"));
                tokio::time::sleep(asked.every).await;
                continue;
            }
            looked => looked?,
        };
        if before.is_none() {
            output.note(&format!("watching {}; Ctrl-C ends", counted(now.len() as u64)));
        }
        before = Some(now);
        if asked.looks.is_some_and(|looks| look >= looks) {
            break;
        }
        tokio::time::sleep(asked.every).await;
    }
    Ok(Exit::Done)
}

/// Scans once, and prints what has changed since `before`.
async fn look_at(
    operator: &Operator,
    selection: &Selection,
    before: Option<&HashMap<String, Seen>>,
    output: &mut Output,
) -> Result<HashMap<String, Seen>, Failure> {
    let mut now = HashMap::new();
    let mut next = None;
    loop {
        let page = operator.scan(selection, next.as_ref(), PAGE).await?;
        for listed in page.records {
            let Listed::Record(record) = listed else { continue };
            let seen = Seen::of(&record);
            let name = record.key.to_string();
            let is_same = before.is_none_or(|before| before.get(&name) == Some(&seen));
            // A scan may return a record twice.
            let is_first = now.insert(name.clone(), seen) != Some(seen);
            if !is_same && is_first {
                let was = before.and_then(|before| before.get(&name));
                print(&record, was, output)?;
            }
            if now.len() > MOST {
                return Err(Failure::usage(format!(
                    "more than {MOST} records are selected; watch fewer of them"
                )));
            }
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    for (name, seen) in before.into_iter().flatten() {
        if !now.contains_key(name) {
            print_gone(name, *seen, output)?;
        }
    }
    Ok(now)
}

impl Seen {
    fn of(record: &RecordSummary) -> Self {
        Self {
            version: record.version(),
            state: view::state_of(record),
            has_steps: matches!(
                record.state,
                idem_core::inspect::RecordState::Claimed { has_steps: true, .. }
            ),
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
