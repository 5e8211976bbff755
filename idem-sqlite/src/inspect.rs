//! What an operator sees of the records, and settles.
//!
//! Owns the range of keys that a scan goes through, and the meaning of the rows that are read for an operator. The changes are made by
//! the writer, like all others.
//!
//! | module | owns |
//! |---|---|
//! | `statements` | the text of the statements of operators |
//! | `settle` | a settlement in the writer's transaction |
//! | `diagnosis` | how the file and the tables are set up |

mod diagnosis;
mod settle;
mod statements;

use idem_core::columns::{PageSize, cursor_bytes, cursor_of, listed, page};
use idem_core::inspect::{
    Cursor, Finding, Inspect, Listed, LiveClaim, Page, Phase, RecordDetails, RecordSummary, RecordVersion, Selection,
    Settled, Settlement, only_forgotten,
};
use idem_core::{BackendError, RecordKey};
use sqlx::Row as _;
use sqlx::error::BoxDynError;
use sqlx::sqlite::{SqliteArguments, SqliteRow};

pub(crate) use self::settle::{Settling, settle};
pub(crate) use self::statements::OperatorStatements;
use crate::SqliteBackend;
use crate::change::Change;
use crate::clock::{Clock, Moment};
use crate::error::backend_error;
use crate::record::{Parameters, Row};

const LISTING: &str = "listing records";
const SHOWING: &str = "showing a record";

impl Inspect for SqliteBackend {
    /// Goes through the keys in their order. The keys of an operation are next to each other, and of those the keys of a scope.
    async fn scan(&self, selection: &Selection, after: Option<&Cursor>, limit: usize) -> Result<Page, BackendError> {
        let at = (self.changes.clock()?, Clock::now());
        let range = Range::of(selection, after)?;
        let size = PageSize::of(limit, range.all_match);
        let store = self.store();
        let range = arguments(
            LISTING,
            Parameters::range(&range.lower, range.upper.as_deref(), size.rows),
        )?;
        let rows = store.readers.read_all(&store.statements.operator.scan, range).await?;
        let named: sqlx::Result<Vec<_>> = rows.iter().map(|row| Ok((name_of(row)?, row))).collect();
        let failed = |error| backend_error(LISTING, error).not_written();
        let named = named.map_err(failed)?;
        let mut page = page(
            &named,
            size,
            |(name, row)| listed(name, selection, |key| summary(row, key, at)),
            |(name, _)| cursor_of(name),
        );
        for listed in &mut page.records {
            if let Listed::Unreadable(unreadable) = listed
                && let Some(key) = RecordKey::from_encoded(&unreadable.name)
            {
                let of_key = arguments(LISTING, Parameters::of(&key))?;
                let rows = store.readers.read_all(&store.statements.operator.whole, of_key).await?;
                unreadable.version = rows.first().map(version_of_unreadable).transpose().map_err(failed)?;
                page.commands += 1;
            }
        }
        Ok(page)
    }

    async fn inspect(&self, key: &RecordKey) -> Result<Option<RecordDetails>, BackendError> {
        let at = (self.changes.clock()?, Clock::now());
        let store = self.store();
        let of_key = arguments(SHOWING, Parameters::of(key))?;
        let rows = store
            .readers
            .read_all(&store.statements.operator.inspect, of_key)
            .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let failed = |error| backend_error(SHOWING, error).not_written();
        let row = Row::of(first).map_err(failed)?;
        let Some(left) = row.left(at) else { return Ok(None) };
        let step = |row: &SqliteRow| {
            let step: (Option<String>, Option<Vec<u8>>) = (row.try_get(12)?, row.try_get(13)?);
            Ok(step)
        };
        let steps: sqlx::Result<Vec<_>> = rows.iter().map(step).collect();
        // A record without steps is one row without a name.
        let steps = steps.map_err(failed)?.into_iter();
        let steps = steps.filter_map(|(name, step)| Some((name?, step?.into()))).collect();
        row.into_columns().details(key, left, steps).map(Some)
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
        }
        let asked = Box::new(Settling {
            key: key.clone(),
            version,
            settlement: settlement.clone(),
            live,
        });
        self.changes.make(|answer| Change::Settle { asked, answer }).await
    }

    async fn diagnose(&self) -> Result<Vec<Finding>, BackendError> {
        diagnosis::diagnose(self).await
    }
}

fn arguments(what: &'static str, parameters: Result<Parameters, BoxDynError>) -> Result<SqliteArguments, BackendError> {
    let failed = |error| backend_error(what, sqlx::Error::Encode(error)).not_written();
    Ok(parameters.map_err(failed)?.into_arguments())
}

/// The version of a record that cannot be read, by its row of [`OperatorStatements::whole`].
pub(crate) fn version_of_unreadable(row: &SqliteRow) -> sqlx::Result<RecordVersion> {
    let bytes: Vec<u8> = row.try_get(0)?;
    Ok(RecordVersion::of_unreadable(&bytes))
}

/// The key of a row of [`OperatorStatements::scan`]. It may be no text: somebody else may have written it.
fn name_of(row: &SqliteRow) -> sqlx::Result<Vec<u8>> {
    row.try_get(12)
}

/// What a list shows of a row; `None` if it has expired.
fn summary(row: &SqliteRow, key: &RecordKey, at: (&Clock, Moment)) -> Result<Option<RecordSummary>, BackendError> {
    let read = Row::of(row).and_then(|read| Ok((read, row.try_get(13)?)));
    let (read, payload_len) = read.map_err(|error| backend_error(LISTING, error).not_written())?;
    let left = read.left(at);
    left.map(|left| read.into_listed(payload_len).summary(key, left))
        .transpose()
}

/// The keys that a scan goes through, in the order of their bytes.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    /// The first one, which may be no text.
    lower: Vec<u8>,
    /// The first one after the last; `None` if there is no end.
    upper: Option<String>,
    /// Whether all keys of the range are selected.
    all_match: bool,
}

impl Range {
    fn of(selection: &Selection, after: Option<&Cursor>) -> Result<Self, BackendError> {
        let parts = [selection.operation(), selection.scope(), selection.key()];
        let (prefix, upper) = match parts {
            [None, ..] => (String::new(), None),
            // No character stands between a colon and a semicolon.
            [Some(operation), None, _] => (format!("{operation}:"), Some(format!("{operation};"))),
            [Some(operation), Some(scope), None] => {
                let of_scope = format!("{operation}:{scope}");
                (format!("{of_scope}:"), Some(format!("{of_scope};")))
            }
            [Some(operation), Some(scope), Some(key)] => {
                let key = format!("{operation}:{scope}:{key}");
                (key.clone(), Some(key + "\0"))
            }
        };
        let lower = prefix.into_bytes();
        let after = after.map(cursor_bytes).transpose()?;
        let lower = match after {
            // The first key after this one.
            Some(mut after) => {
                after.push(0);
                lower.max(after)
            }
            None => lower,
        };
        let other_parts = parts.iter().skip_while(|part| part.is_some());
        Ok(Self {
            lower,
            upper,
            all_match: other_parts.clone().all(Option::is_none),
        })
    }
}

#[cfg(test)]
mod tests {
    use idem_core::{IdempotencyKey, Scope};

    use super::*;

    fn range(selection: &Selection, after: Option<&str>) -> (String, Option<String>, bool) {
        let after = after.map(|key| cursor_of(key.as_bytes()));
        let range = Range::of(selection, after.as_ref()).expect("a cursor of this store");
        let lower = String::from_utf8(range.lower).expect("text");
        (lower, range.upper, range.all_match)
    }

    #[test]
    fn a_scan_goes_through_the_keys_of_the_operation_and_the_scope_and_no_others() {
        let all = Selection::all();
        let operation = all.clone().with_operation("POST /o").expect("valid");
        let scope = operation.clone().with_scope(&Scope::of("acme")).expect("valid");
        let key = IdempotencyKey::of("k");
        let upper = |text: &str| Some(text.to_owned());
        assert_eq!(range(&all, None), (String::new(), None, true));
        assert_eq!(
            range(&operation, None),
            ("POST%20/o:".to_owned(), upper("POST%20/o;"), true)
        );
        assert_eq!(
            range(&scope, Some("POST%20/o:acme:k")),
            ("POST%20/o:acme:k\0".to_owned(), upper("POST%20/o:acme;"), true)
        );
        let one = scope.clone().with_key(&key).expect("valid");
        let whole = "POST%20/o:acme:k".to_owned();
        assert_eq!(range(&one, None), (whole.clone(), Some(whole + "\0"), true));
        // A cursor of another selection does not widen the range.
        let lower = range(&scope, Some("GET%20/:acme:k")).0;
        assert_eq!(lower, "POST%20/o:acme:");
        for narrow in [
            operation.with_key(&key).expect("valid"),
            all.with_key(&key).expect("valid"),
        ] {
            assert!(!range(&narrow, None).2);
        }
    }
}
