//! `idem stats`.

use std::time::{Duration, SystemTime};

use idem_core::inspect::{OperationTally, Operator, PAGE, Tally};
use serde_json::json;

use crate::args::Stats;
use crate::exit::{Exit, Failure};
use crate::find::selection_of;
use crate::output::{Cell, Output, Tone, records as counted};
use crate::progress::Scanned;
use crate::view::{rough, time};

pub(crate) async fn stats(operator: &Operator, asked: &Stats, output: &mut Output) -> Result<Exit, Failure> {
    let selection = selection_of(&asked.parts)?;
    let mut tally = Tally::default();
    let mut scanned = Scanned::default();
    let mut next = None;
    loop {
        let page = operator.scan(&selection, next.as_ref(), PAGE).await?;
        scanned.add(&page);
        output.progress(&scanned);
        page.records.iter().for_each(|listed| tally.add(listed));
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    if output.is_json {
        let operations: Vec<_> = tally.operations().map(|(name, tally)| in_json(name, tally)).collect();
        output.json(&json!({
            "operations": operations,
            "unreadable": tally.unreadable,
            "looked_at": scanned.looked_at,
            "commands": scanned.commands,
        }))?;
        return Ok(Exit::Done);
    }
    let now = SystemTime::now();
    let rows: Vec<_> = tally.operations().map(|(name, tally)| row(name, tally, now)).collect();
    output.table(&COLUMNS, &rows)?;
    if tally.unreadable > 0 {
        output.line(&format!(
            "{} cannot be read: idem list --state unreadable",
            counted(tally.unreadable)
        ))?;
    }
    let records = scanned.found.max(1);
    let tenths = scanned.commands.saturating_mul(100) / records;
    output.note(&format!(
        "{}, {} commands ({}.{:02} a record)",
        counted(scanned.found),
        scanned.commands,
        tenths / 100,
        tenths % 100
    ));
    Ok(Exit::Done)
}

const COLUMNS: [&str; 9] = [
    "OPERATION",
    "IN-FLIGHT",
    "LAPSED",
    "PARKED",
    "STORED",
    "NOT-STORED",
    "UNKNOWN",
    "BYTES",
    "OLDEST UNFINISHED",
];

fn row(name: Option<&str>, tally: &OperationTally, now: SystemTime) -> Vec<Cell> {
    let number = |number: u64, tone| Cell::toned(number.to_string(), if number == 0 { Tone::Faint } else { tone });
    let oldest = tally
        .oldest_unfinished
        .map(|began| now.duration_since(began).unwrap_or(Duration::ZERO));
    vec![
        Cell::new(name.unwrap_or("(others)")),
        number(tally.in_flight, Tone::Good),
        number(tally.lapsed, Tone::Warning),
        number(tally.parked, Tone::Warning),
        number(tally.stored, Tone::Plain),
        number(tally.not_stored, Tone::Warning),
        number(tally.unknown, Tone::Bad),
        number(tally.payload_bytes, Tone::Plain),
        Cell::new(oldest.map_or("-".to_owned(), rough)),
    ]
}

fn in_json(name: Option<&str>, tally: &OperationTally) -> serde_json::Value {
    json!({
        "operation": name,
        "by_state": {
            "in-flight": tally.in_flight,
            "lapsed": tally.lapsed,
            "parked": tally.parked,
            "stored": tally.stored,
            "not-stored": tally.not_stored,
            "unknown": tally.unknown,
        },
        "stored_bytes": tally.payload_bytes,
        "oldest_unfinished": tally.oldest_unfinished.map(time),
    })
}
