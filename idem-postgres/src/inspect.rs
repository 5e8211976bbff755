//! What an operator sees of the records, and settles.
//!
//! Owns the pages of a scan, and the meaning of the rows of the statements of operators. Does not own their text:
//! [`statements`](crate::statements).
//!
//! | module | owns |
//! |---|---|
//! | `diagnosis` | how the server and the tables are set up |

mod diagnosis;

use std::collections::HashMap;
use std::time::Duration;

use idem_core::claim::millis_of_time;
use idem_core::columns::{ListedColumns, PageSize, cursor_bytes, cursor_of, listed, page};
use idem_core::inspect::{
    Cursor, Finding, Inspect, Listed, LiveClaim, Page, Phase, RecordDetails, RecordSummary, RecordVersion, Selection,
    Settled, Settlement, StepChange, StepsDigest, Unreadable, only_forgotten, signature,
};
use idem_core::{BackendError, RecordKey, Token};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::PostgresBackend;
use crate::error::backend_error;
use crate::protocol::{Call, Value, Wanted};
use crate::record::{End, Id, Seen};

const LISTING: &str = "listing records";
const SHOWING: &str = "showing a record";
const SETTLING: &str = "settling a record";

impl Inspect for PostgresBackend {
    /// Goes through the ids in their order, which is none of the keys. A whole key is looked up.
    async fn scan(&self, selection: &Selection, after: Option<&Cursor>, limit: usize) -> Result<Page, BackendError> {
        // A pattern with a star is no key.
        let one = RecordKey::from_encoded(&selection.pattern("*"));
        let first = match (&one, after) {
            (Some(_), Some(_)) => return Ok(Page::default()),
            (Some(key), None) => Id::of(key).as_bytes().to_vec(),
            // The first id after this one.
            (None, Some(after)) => [cursor_bytes(after)?, vec![0]].concat(),
            (None, None) => Vec::new(),
        };
        let size = match &one {
            Some(_) => PageSize::of(1, true),
            None => PageSize::of(limit, *selection == Selection::all()),
        };
        let mut page = self.page_from(&first, selection, size).await?;
        if one.is_some() {
            (page.next, page.percent) = (None, Some(100));
        }
        Ok(page)
    }

    async fn inspect(&self, key: &RecordKey) -> Result<Option<RecordDetails>, BackendError> {
        let id = Id::of(key);
        let call = Call {
            what: SHOWING,
            statement: &self.table.statements.operator.inspect,
            values: &[Value::Bytes(id.as_bytes())],
        };
        let rows = self.table.ask_all(call).await?;
        let Some(first) = rows.first else { return Ok(None) };
        let failed = |error| backend_error(SHOWING, error);
        let Some((columns, left)) = Seen::of(&first).map_err(failed)?.left() else {
            return Ok(None);
        };
        let step = |row: &PgRow| {
            let step: (Option<String>, Option<Vec<u8>>) = (row.try_get(12)?, row.try_get(13)?);
            Ok(step)
        };
        let steps: sqlx::Result<Vec<_>> = std::iter::once(&first).chain(&rows.others).map(step).collect();
        // A record without steps is one row without a name.
        let steps = steps.map_err(failed)?.into_iter();
        let steps = steps.filter_map(|(name, step)| Some((name?, step?.into()))).collect();
        columns.details(key, left, steps).map(Some)
    }

    async fn settle(
        &self,
        key: &RecordKey,
        version: RecordVersion,
        settlement: &Settlement,
        live: LiveClaim,
    ) -> Result<Settled, BackendError> {
        if version.phase == Phase::Unreadable {
            only_forgotten(settlement, live)?;
            return self.forget_unreadable(key, version).await;
        }
        let operator = &self.table.statements.operator;
        let statement = operator.settle(version.phase, settlement, live);
        let end = End::of(key, version.token, self.table.name.channel());
        let new_token;
        let signature = self.signature(key, version.steps).await;
        let signature = signature.map_err(BackendError::not_written)?;
        let signature = [Value::Text(&signature)];
        let values = match settlement {
            Settlement::Forget => [&end.release()[..], &signature].concat(),
            Settlement::Rerun { token, began_at, step } => {
                new_token = token.to_bytes();
                let began_at = i64::try_from(millis_of_time(*began_at)).unwrap_or(i64::MAX);
                let parked = [Value::Number(began_at), Value::Bytes(&new_token)];
                [&end.release()[..], &signature, &parked, &of_step(step.as_ref())].concat()
            }
            Settlement::Complete { token, completion, ttl } => {
                new_token = token.to_bytes();
                [
                    &end.complete(completion, *ttl)[..],
                    &signature,
                    &[Value::Bytes(&new_token)],
                ]
                .concat()
            }
        };
        let call = Call {
            what: SETTLING,
            statement: &statement,
            values: &values,
        };
        let row = self.settle_by(call).await?;
        let read = || Ok((row.try_get(0)?, row.try_get(1)?));
        let read: sqlx::Result<(bool, Option<i64>)> = read();
        Ok(match read.map_err(|error| backend_error(SETTLING, error))? {
            (true, _) => Settled::Applied,
            (false, Some(millis)) => Settled::Live(Duration::from_millis(millis.unsigned_abs())),
            (false, None) => Settled::Changed,
        })
    }

    async fn diagnose(&self) -> Result<Vec<Finding>, BackendError> {
        diagnosis::diagnose(self).await
    }
}

/// A signature that no steps have.
const OTHER_STEPS: &str = "?";

impl PostgresBackend {
    /// Executes the statements of a settlement, and returns the row of the last one.
    async fn settle_by(&self, call: Call<'_>) -> Result<PgRow, BackendError> {
        let mut connection = self.table.connections.lend(SETTLING).await?;
        connection.wake(SETTLING).await?;
        let row = connection.ask_for(call, Wanted::LastOfText).await?.first;
        row.ok_or_else(|| backend_error(SETTLING, sqlx::Error::RowNotFound))
    }

    /// Removes a record that cannot be read, if it is still as it was seen.
    async fn forget_unreadable(&self, key: &RecordKey, seen: RecordVersion) -> Result<Settled, BackendError> {
        let end = End::of(key, seen.token, self.table.name.channel());
        let call = Call {
            what: SETTLING,
            statement: &self.table.statements.operator.forget_unreadable,
            values: &end.release(),
        };
        let is_removed = self.settle_by(call).await?.try_get(0);
        let is_removed: bool = is_removed.map_err(|error| backend_error(SETTLING, error))?;
        Ok(if is_removed { Settled::Applied } else { Settled::Changed })
    }

    /// Adds the versions of the records of a page that cannot be read.
    async fn read_versions(&self, page: &mut Page) -> Result<(), BackendError> {
        let mut unreadable: HashMap<Vec<u8>, &mut Unreadable> = HashMap::new();
        for listed in &mut page.records {
            if let Listed::Unreadable(record) = listed
                && let Some(key) = RecordKey::from_encoded(&record.name)
            {
                unreadable.insert(Id::of(&key).as_bytes().to_vec(), record);
            }
        }
        if unreadable.is_empty() {
            return Ok(());
        }
        let ids: Vec<u8> = unreadable.keys().flatten().copied().collect();
        let call = Call {
            what: LISTING,
            statement: &self.table.statements.operator.digests,
            values: &[Value::Bytes(&ids)],
        };
        let rows = self.table.ask_all(call).await?;
        page.commands += 1;
        for row in rows.first.iter().chain(&rows.others) {
            let read = || Ok((row.try_get(0)?, row.try_get(1)?));
            let read: sqlx::Result<(Vec<u8>, Vec<u8>)> = read();
            let (id, digest) = read.map_err(|error| backend_error(LISTING, error))?;
            if let (Some(record), Ok(digest)) = (unreadable.get_mut(&id), digest.try_into()) {
                record.version = Some(RecordVersion::new(Token::from_bytes(digest), Phase::Unreadable));
            }
        }
        Ok(())
    }

    /// The signature of the steps that the operator has seen, which the statement compares again.
    async fn signature(&self, key: &RecordKey, seen: StepsDigest) -> Result<String, BackendError> {
        if seen == StepsDigest::NONE {
            return Ok(String::new());
        }
        let Some(details) = self.inspect(key).await? else {
            return Ok(OTHER_STEPS.to_owned());
        };
        let steps = details.steps.iter().map(|(name, step)| (name.as_str(), &step[..]));
        Ok(if details.version().steps == seen {
            signature(steps)
        } else {
            OTHER_STEPS.to_owned()
        })
    }

    async fn page_from(&self, first: &[u8], selection: &Selection, size: PageSize) -> Result<Page, BackendError> {
        let rows = i64::try_from(size.rows).unwrap_or(i64::MAX);
        let call = Call {
            what: LISTING,
            statement: &self.table.statements.operator.scan,
            values: &[Value::Bytes(first), Value::Number(rows)],
        };
        let rows = self.table.ask_all(call).await?;
        let named = |row| {
            let (id, name) = name_of(&row)?;
            Ok((id, name, row))
        };
        let named: sqlx::Result<Vec<_>> = rows.first.into_iter().chain(rows.others).map(named).collect();
        let named = named.map_err(|error| backend_error(LISTING, error))?;
        let mut page = page(
            &named,
            size,
            |(_, name, row)| listed(name.as_bytes(), selection, |key| summary(row, key)),
            |(id, _, _)| cursor_of(id),
        );
        let next = page.next.as_ref().map(cursor_bytes).transpose()?;
        page.percent = next.map_or(Some(100), |id| percent_before(&id));
        self.read_versions(&mut page).await?;
        Ok(page)
    }
}

/// How many percent of all ids come before `id`, about. They are hashes, so they are spread evenly.
fn percent_before(id: &[u8]) -> Option<u8> {
    let first = u16::from(*id.first()?);
    u8::try_from(first * 100 / 256).ok()
}

/// The id and the key of a row of a scan.
fn name_of(row: &PgRow) -> sqlx::Result<(Vec<u8>, String)> {
    Ok((row.try_get(12)?, row.try_get(13)?))
}

/// What a list shows of a row; `None` if it has expired.
fn summary(row: &PgRow, key: &RecordKey) -> Result<Option<RecordSummary>, BackendError> {
    let read = Seen::of(row).and_then(|seen| Ok((seen, row.try_get(14)?)));
    let (seen, payload_len) = read.map_err(|error| backend_error(LISTING, error))?;
    let summary = |(columns, left)| ListedColumns { columns, payload_len }.summary(key, left);
    seen.left().map(summary).transpose()
}

/// The values of a changed step.
fn of_step(step: Option<&StepChange>) -> Vec<Value<'_>> {
    match step {
        Some(StepChange::Done { name, step }) => vec![Value::Text(name), Value::Bytes(step)],
        Some(StepChange::NotDone { name }) => vec![Value::Text(name)],
        None => Vec::new(),
    }
}
