//! `idem forget-scope`.
//!
//! Owns the removal of many records, each fenced by the version at which it was seen. Without `--yes` it only counts.

use std::cell::Cell as Flag;
use std::collections::BTreeMap;
use std::time::SystemTime;

use futures_util::{StreamExt as _, stream};
use idem_core::RecordKey;
use idem_core::inspect::{Listed, LiveClaim, Operator, PAGE, Phase, RecordVersion, Selection, Settled, Settlement};
use serde_json::json;

use crate::args::{ForgetScope, Parts, StateName};
use crate::exit::{Exit, Failure};
use crate::find::selection_of;
use crate::list::is_wanted;
use crate::output::{Cell, Output, records as counted};
use crate::progress::Scanned;
use crate::view;

/// How many records are shown as examples.
const EXAMPLES: usize = 5;

/// How many records are forgotten at the same time.
const AT_ONCE: usize = 16;

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
        let is_wanted = |listed: &&Listed| is_wanted(&asked.filters, listed, now);
        let wanted: Vec<_> = page.records.iter().filter(is_wanted).collect();
        let left = EXAMPLES.saturating_sub(run.examples.len());
        let examples = wanted.iter().take(left).map(|listed| view::row(listed, output, now));
        run.examples.extend(examples);
        forget(operator, asked, &wanted, output, &mut run.count).await?;
        next = page.next;
        if next.is_none() {
            return Ok(());
        }
    }
}

/// Counts the records of a page, and forgets them if that is asked for.
async fn forget(
    operator: &Operator,
    asked: &ForgetScope,
    wanted: &[&Listed],
    output: &Output,
    count: &mut Count,
) -> Result<(), Failure> {
    let mut seen = Vec::new();
    for listed in wanted {
        let (state, is_live, key, version) = match listed {
            Listed::Record(record) => {
                let state = view::state_of(record);
                let is_live = state == StateName::InFlight;
                (state, is_live, record.key.clone(), record.version())
            }
            Listed::Unreadable(unreadable) => match (RecordKey::from_encoded(&unreadable.name), unreadable.version) {
                (Some(key), Some(version)) if asked.force => (StateName::Unreadable, false, key, version),
                // It is no record, or a handler may be running under it.
                _ => {
                    count.unreadable += 1;
                    continue;
                }
            },
        };
        *count.by_state.entry(state.name()).or_default() += 1;
        count.records += 1;
        count.live += u64::from(!asked.yes && is_live && !asked.force);
        seen.push((key, version));
    }
    let Some(reason) = asked.reason.as_deref().filter(|_| asked.yes) else {
        return Ok(());
    };
    // After a failure, no further call is made, and those that were sent are waited for.
    let has_failed = Flag::new(false);
    let settling = seen
        .into_iter()
        .take_while(|_| !has_failed.get())
        .map(|(key, version)| settle(operator, asked, (output.chosen(&key), version), reason));
    let mut settling = stream::iter(settling).buffer_unordered(AT_ONCE);
    let mut ended = Ok(());
    while let Some(settled) = settling.next().await {
        match settled {
            Ok(Settled::Applied) => count.forgotten += 1,
            Ok(Settled::Changed) => count.changed += 1,
            Ok(Settled::Live(_)) => count.live += 1,
            Err(failure) => {
                has_failed.set(true);
                ended = Err(failure);
            }
        }
    }
    ended
}

/// Forgets a record as it was listed, or as it is now if it has changed since and is still wanted.
async fn settle(
    operator: &Operator,
    asked: &ForgetScope,
    (key, mut version): (RecordKey, RecordVersion),
    reason: &str,
) -> Result<Settled, Failure> {
    let live = if asked.force {
        LiveClaim::Force
    } else {
        LiveClaim::Refuse
    };
    for _ in 0..TRIES {
        let settled = operator
            .settle(&key, version, &Settlement::Forget, live, reason)
            .await?;
        if settled != Settled::Changed || version.phase == Phase::Unreadable {
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
            "{} cannot be read, and left as they are; --force removes those that are records",
            counted(count.unreadable)
        ));
    }
    Ok(())
}
