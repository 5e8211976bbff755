//! `idem list`.

use std::time::SystemTime;

use idem_core::BackendErrorKind;
use idem_core::inspect::{Cursor, Listed, Operator, Page};
use serde_json::json;

use crate::args::{Filters, List, StateName};
use crate::exit::{Exit, Failure};
use crate::find::selection_of;
use crate::output::{Output, records as counted};
use crate::progress::Scanned;
use crate::view;

/// How many records are printed at once where all are wanted, so that memory does not grow with their number.
const BATCH: usize = 1_000;

pub(crate) async fn list(operator: &Operator, list: &List, output: &mut Output) -> Result<Exit, Failure> {
    let selection = selection_of(&list.parts)?;
    let most = if list.all { BATCH } else { list.limit.get() };
    let mut next = list.after.as_deref().map(Cursor::new);
    let mut scanned = Scanned::default();
    let mut printed = 0;
    loop {
        let now = SystemTime::now();
        let wanted = |listed: &Listed| is_wanted(&list.filters, listed, now);
        let progress = |page: &Page| {
            scanned.add(page);
            output.progress(&scanned);
        };
        let is_given = list.after.is_some() && printed == 0;
        let page = operator.list(&selection, next.take(), most, wanted, progress).await;
        let page = page.map_err(|error| match error.kind() {
            BackendErrorKind::Config if is_given => {
                Failure::usage("--after is no cursor of this store").because(&error)
            }
            _ => error.into(),
        })?;
        if output.is_json {
            print_json(&page, list.all, output)?;
        } else {
            print_rows(&page, printed == 0, output, now)?;
        }
        printed += page.records.len() as u64;
        next = page.next;
        if !list.all || next.is_none() || output.is_closed() {
            break;
        }
    }
    if !output.is_json {
        let noted = counted(printed);
        match &next {
            Some(_) if !output.shows_cursors => output.note(&format!(
                "{noted}; there are more. A cursor of SQLite shows a record key: list on without --hash-keys, or with --all or a \
                 higher --limit"
            )),
            Some(next) => output.note(&format!("{noted}; more by --after '{}'", next.as_str())),
            None => output.note(&noted),
        }
    }
    Ok(if list.expect_none && printed > 0 {
        Exit::Unhealthy
    } else {
        Exit::Done
    })
}

/// Below a header, if these rows are the first ones.
fn print_rows(page: &Page, is_first: bool, output: &mut Output, now: SystemTime) -> Result<(), Failure> {
    let rows: Vec<_> = page
        .records
        .iter()
        .map(|listed| view::row(listed, output, now))
        .collect();
    if is_first {
        output.table(&view::COLUMNS, &rows)
    } else {
        output.rows(&rows)
    }
}

fn print_json(page: &Page, is_all: bool, output: &mut Output) -> Result<(), Failure> {
    let records: Vec<_> = page.records.iter().map(|listed| view::json(listed, output)).collect();
    let next = page.next.as_ref().filter(|_| !is_all);
    let shown = next.filter(|_| output.shows_cursors).map(Cursor::as_str);
    output.json(&json!({
        "records": records,
        "next": shown,
        "has_more": next.is_some(),
        "looked_at": page.looked_at,
        "commands": page.commands,
    }))
}

/// Whether a record passes the filters that no store can apply by itself.
pub(crate) fn is_wanted(filters: &Filters, listed: &Listed, now: SystemTime) -> bool {
    let record = match listed {
        Listed::Record(record) => record,
        Listed::Unreadable(_) => {
            let has_age = filters.older_than.is_some() || filters.younger_than.is_some();
            let is_state = filters.state.is_empty() || filters.state.contains(&StateName::Unreadable);
            return is_state && !has_age;
        }
    };
    let age = now.duration_since(record.began_at).unwrap_or_default();
    (filters.state.is_empty() || filters.state.contains(&view::state_of(record)))
        && filters.older_than.is_none_or(|least| age >= least)
        && filters.younger_than.is_none_or(|most| age <= most)
}
