//! `idem forget-scope`.
//!
//! Owns the removal of many records, each fenced by the version at which it was seen. Without `--yes` it only counts.

use std::collections::BTreeMap;
use std::time::SystemTime;

use idem_core::inspect::{Listed, LiveClaim, Operator, PAGE, RecordSummary, Selection, Settled, Settlement};
use serde_json::json;

use crate::args::{ForgetScope, Parts, StateName};
use crate::exit::{Exit, Failure};
use crate::find::selection_of;
use crate::list::is_wanted;
use crate::output::{Cell, Output, Scanned, records as counted};
use crate::view;

/// How many records are shown as examples.
const EXAMPLES: usize = 5;

/// How often a record is tried that keeps changing.
const TRIES: usize = 3;

/// What has become of the records.
#[derive(Default)]
struct Count {
    by_state: BTreeMap<&'static str, u64>,
    records: u64,
    forgotten: u64,
    changed: u64,
    live: u64,
    unreadable: u64,
}

pub(crate) async fn forget_scope(
    operator: &Operator,
    asked: &ForgetScope,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let selection = selection_of(&Parts {
        operation: asked.operation.clone(),
        scope: asked.scope.clone(),
        idempotency_key: None,
    })?;
    let mut run = Run::default();
    let ended = go_through(operator, asked, &selection, &mut run, output).await;
    print(asked, &run, output)?;
    if ended.is_err() {
        output.note("it has not come to its end; the counts say what was done. Run it again");
    }
    ended?;
    let count = &run.count;
    Ok(match asked.yes {
        true if count.live > 0 => Exit::Live,
        true if count.changed > 0 => Exit::Changed,
        true if count.unreadable > 0 => Exit::Failed,
        _ => Exit::Done,
    })
}

/// What a run has come to so far.
#[derive(Default)]
struct Run {
    count: Count,
    examples: Vec<Vec<Cell>>,
}

async fn go_through(
    operator: &Operator,
    asked: &ForgetScope,
    selection: &Selection,
    run: &mut Run,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut scanned = Scanned::default();
    let mut next = None;
    loop {
        let page = operator.scan(selection, next.as_ref(), PAGE).await?;
        scanned.add(&page);
        output.progress(&scanned);
        let now = SystemTime::now();
        for listed in page
            .records
            .iter()
            .filter(|listed| is_wanted(&asked.filters, listed, now))
        {
            if run.examples.len() < EXAMPLES {
                run.examples.push(view::row(listed, output, now));
            }
            forget(operator, asked, listed, output, &mut run.count).await?;
        }
        next = page.next;
        if next.is_none() {
            return Ok(());
        }
    }
}

async fn forget(
    operator: &Operator,
    asked: &ForgetScope,
    listed: &Listed,
    output: &Output,
    count: &mut Count,
) -> Result<(), Failure> {
    let record = match listed {
        Listed::Record(record) => record,
        Listed::Unreadable(_) => {
            // It has no version that a change could be fenced by.
            count.unreadable += 1;
            return Ok(());
        }
    };
    let state = view::state_of(record);
    *count.by_state.entry(state.name()).or_default() += 1;
    count.records += 1;
    let Some(reason) = asked.reason.as_deref().filter(|_| asked.yes) else {
        count.live += u64::from(state == StateName::InFlight && !asked.force);
        return Ok(());
    };
    let settled = settle(operator, asked, record, reason, output).await?;
    match settled {
        Settled::Applied => count.forgotten += 1,
        Settled::Changed => count.changed += 1,
        Settled::Live(_) => count.live += 1,
    }
    Ok(())
}

/// Forgets a record as it was listed, or as it is now if it has changed since and is still wanted.
async fn settle(
    operator: &Operator,
    asked: &ForgetScope,
    record: &RecordSummary,
    reason: &str,
    output: &Output,
) -> Result<Settled, Failure> {
    let live = if asked.force {
        LiveClaim::Force
    } else {
        LiveClaim::Refuse
    };
    let key = output.chosen(&record.key);
    let mut version = record.version();
    for _ in 0..TRIES {
        let settled = operator
            .settle(&key, version, &Settlement::Forget, live, reason)
            .await?;
        if settled != Settled::Changed {
            return Ok(settled);
        }
        // A list does not read steps, and a record may have been completed since.
        let Some(details) = operator.show(&key).await? else {
            return Ok(Settled::Applied);
        };
        let is_still_wanted = is_wanted(
            &asked.filters,
            &Listed::Record(details.summary.clone()),
            SystemTime::now(),
        );
        if !is_still_wanted {
            break;
        }
        version = details.summary.version();
    }
    Ok(Settled::Changed)
}

fn print(asked: &ForgetScope, run: &Run, output: &mut Output) -> Result<(), Failure> {
    let Run { count, examples } = run;
    if output.is_json {
        return output.json(&json!({
            "dry_run": !asked.yes,
            "records": count.records,
            "by_state": count.by_state,
            "forgotten": count.forgotten,
            "changed": count.changed,
            "live": count.live,
            "unreadable": count.unreadable,
        }));
    }
    if !asked.yes {
        output.table(&view::COLUMNS, examples)?;
    }
    for (state, records) in &count.by_state {
        output.line(&format!("{records:>10}  {state}"))?;
    }
    if asked.yes {
        output.line(&format!(
            "{} forgotten, {} changed meanwhile, {} live and left",
            count.forgotten, count.changed, count.live
        ))?;
    } else {
        let left = if count.live > 0 {
            format!(
                " {} of them are live and would be left, unless --force is given.",
                count.live
            )
        } else {
            String::new()
        };
        output.line(&format!(
            "{} would be forgotten.{left} Nothing was changed; --yes and --reason forget them",
            counted(count.records - count.live)
        ))?;
    }
    if count.unreadable > 0 {
        output.note(&format!(
            "{} cannot be read, and left as they are",
            counted(count.unreadable)
        ));
    }
    Ok(())
}
