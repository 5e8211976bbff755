//! `idem forget-scope`.
//!
//! Owns the removal of many records, each fenced by the version at which it was seen. Without `--yes` it only counts.

use std::cell::Cell as Flag;
use std::collections::BTreeMap;
use std::time::SystemTime;

use futures_util::{StreamExt as _, stream};
use idem_core::inspect::{Listed, LiveClaim, Operator, PAGE, Phase, RecordVersion, Selection, Settled, Settlement};
use idem_core::{RecordKey, Token};
use serde_json::json;

use crate::args::{ForgetScope, Parts, StateName};
use crate::exit::{Exit, Failure};
use crate::find::{Found, look, selection_of};
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

/// After so many failures one after the other, the store is not asked any more.
const MOST_FAILURES: usize = 32;

/// What has become of the records.
#[derive(Default)]
struct Count {
    by_state: BTreeMap<&'static str, u64>,
    records: u64,
    forgotten: u64,
    changed: u64,
    gone: u64,
    live: u64,
    unreadable: u64,
    failed: u64,
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
        output.note("not all records were looked at; the counts say what was done until then. Run the command again");
    }
    ended?;
    let count = &run.count;
    Ok(match asked.yes {
        true if count.failed > 0 => Exit::Failed,
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

/// A record that is to be forgotten.
struct Chosen {
    key: RecordKey,
    token: Token,
    /// `None` if the list could not tell it.
    version: Option<RecordVersion>,
}

/// Counts the records of a page, and forgets them if that is asked for.
async fn forget(
    operator: &Operator,
    asked: &ForgetScope,
    wanted: &[&Listed],
    output: &mut Output,
    count: &mut Count,
) -> Result<(), Failure> {
    let mut chosen = Vec::new();
    for listed in wanted {
        let Some((state, record)) = choose(listed, asked.force, output) else {
            count.unreadable += 1;
            continue;
        };
        *count.by_state.entry(state.name()).or_default() += 1;
        count.records += 1;
        count.live += u64::from(!asked.yes && state == StateName::InFlight && !asked.force);
        chosen.push(record);
    }
    let Some(reason) = asked.reason.as_deref().filter(|_| asked.yes) else {
        return Ok(());
    };
    // After a failure of the store, no further call is made, and those that were sent are waited for.
    let has_failed = Flag::new(false);
    let settling = chosen
        .into_iter()
        .take_while(|_| !has_failed.get())
        .map(|record| settle(operator, asked, record, reason));
    let mut settling = stream::iter(settling).buffer_unordered(AT_ONCE);
    let mut failed_in_a_row = 0;
    let mut ended = Ok(());
    while let Some(settled) = settling.next().await {
        failed_in_a_row = if settled.is_ok() { 0 } else { failed_in_a_row + 1 };
        match settled {
            Ok(Some(Settled::Applied)) => count.forgotten += 1,
            Ok(Some(Settled::Changed)) => count.changed += 1,
            Ok(Some(Settled::Live(_))) => count.live += 1,
            Ok(None) => count.gone += 1,
            Err((record, failure)) => {
                count.failed += 1;
                output.note(&format!("{record}: {failure}"));
                if failed_in_a_row >= MOST_FAILURES {
                    has_failed.set(true);
                    ended = Err(failure);
                }
            }
        }
    }
    ended
}

/// The state of a record and what is needed to forget it; `None` if it cannot be read, and is not to be removed all the same.
fn choose(listed: &Listed, is_forced: bool, output: &Output) -> Option<(StateName, Chosen)> {
    let (state, token, version) = match listed {
        Listed::Record(record) => (view::state_of(record), record.token, record.version()),
        Listed::Unreadable(unreadable) => {
            let version = unreadable.version.filter(|_| is_forced)?;
            (StateName::Unreadable, version.token, Some(version))
        }
    };
    let key = output.chosen(&listed.key()?);
    Some((state, Chosen { key, token, version }))
}

/// Forgets a record as it was listed; `None` if it is gone. If the same attempt has gone on since, and the record is still wanted, it is
/// forgotten as it is now.
async fn settle(
    operator: &Operator,
    asked: &ForgetScope,
    record: Chosen,
    reason: &str,
) -> Result<Option<Settled>, (String, Failure)> {
    let Chosen { key, token, version } = record;
    let is_unreadable = version.is_some_and(|version| version.phase == Phase::Unreadable);
    // A lapsed claim that was asked for may be renewed. Only who asks for live ones takes them.
    let takes_live = asked.filters.state.is_empty() || asked.filters.state.contains(&StateName::InFlight);
    let live = if asked.force && (takes_live || is_unreadable) {
        LiveClaim::Force
    } else {
        LiveClaim::Refuse
    };
    let forget = async |version| operator.settle(&key, version, &Settlement::Forget, live, reason).await;
    let failed = |failure: Failure| (key.shown().to_string(), failure);
    if let Some(version) = version {
        let settled = forget(version).await.map_err(|error| failed(error.into()))?;
        if settled != Settled::Changed {
            return Ok(Some(settled));
        }
    }
    for _ in 0..TRIES {
        let details = match look(operator, &key).await.map_err(failed)? {
            Some(Found::Record(details)) if !is_unreadable => details,
            // A list does not read the steps, and these cannot be read.
            Some(Found::Unreadable { why, .. }) if !is_unreadable => return Err(failed(why)),
            Some(_) => break,
            None => return Ok(None),
        };
        let now = Listed::Record(details.summary.clone());
        if details.summary.token != token || !is_wanted(&asked.filters, &now, SystemTime::now()) {
            break;
        }
        let settled = forget(details.version()).await.map_err(|error| failed(error.into()))?;
        if settled != Settled::Changed {
            return Ok(Some(settled));
        }
    }
    Ok(Some(Settled::Changed))
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
            "gone": count.gone,
            "live": count.live,
            "unreadable": count.unreadable,
            "failed": count.failed,
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
            "{} forgotten, {} gone before, {} changed meanwhile, {} live and left, {} failed",
            count.forgotten, count.gone, count.changed, count.live, count.failed
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
            "{} cannot be read: left. --force removes what is a record of idem",
            counted(count.unreadable)
        ));
    }
    Ok(())
}
