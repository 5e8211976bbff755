//! Rows of a table as an operator sees them.
//!
//! Owns what a list and the details show of a row, the pages of a scan, and the cursor of a scan that goes by a key of bytes. Does not
//! own the statements.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Columns, unreadable};
use crate::inspect::{
    Cursor, Listed, Page, RecordDetails, RecordState, RecordSummary, RecordVersion, Selection, Unreadable,
};
use crate::steps::RecordedSteps;
use crate::{BackendError, BackendErrorKind, RecordKey};

/// The most rows that one statement of a scan looks at.
const MOST_ROWS: usize = 2_000;

/// What is left of a row that has not expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// The rest of the lease; zero if it has lapsed, or the row is no claim.
    pub lease: Duration,
    /// How long until the row expires, if nothing else happens.
    pub expiry: Duration,
}

/// The columns of a row for a list, which reads only the beginning of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedColumns {
    /// The columns, with [`HEAD_LEN`](crate::inspect::HEAD_LEN) bytes of the payload at most, or none of them.
    pub columns: Columns,
    /// The length of the payload in bytes, and NULL without one.
    pub payload_len: Option<i64>,
}

impl Columns {
    /// What a change by an operator is fenced by, without the steps; `None` if the row is not of a known state.
    #[must_use]
    pub fn version(&self) -> Option<RecordVersion> {
        let (token, _, state) = self.identity().ok()?;
        let phase = state.phase();
        Some(RecordVersion::new(token, phase))
    }

    /// Everything that an operator sees of the row under `key`.
    ///
    /// # Errors
    ///
    /// [`BackendErrorKind::Unreadable`] if the row is not a whole record of a known state.
    pub fn details(self, key: &RecordKey, left: Left, steps: RecordedSteps) -> Result<RecordDetails, BackendError> {
        let claim = self.claim().map_err(unreadable)?;
        let found = self.decode(left.lease)?;
        Ok(RecordDetails::of(key, &claim, found.record, steps, left.expiry))
    }
}

impl ListedColumns {
    /// What a list shows of the row under `key`.
    ///
    /// # Errors
    ///
    /// [`BackendErrorKind::Unreadable`] if the row is not a whole record of a known state.
    pub fn summary(self, key: &RecordKey, left: Left) -> Result<RecordSummary, BackendError> {
        let Self {
            mut columns,
            payload_len,
        } = self;
        // Whether a payload is there is told by its length, because its beginning may be left out.
        columns.payload = payload_len.map(|_| columns.payload.unwrap_or_default());
        let mut summary = columns.details(key, left, RecordedSteps::new())?.summary;
        summary.steps = summary.state.listed_steps();
        if let (RecordState::Stored { len, .. }, Some(payload_len)) = (&mut summary.state, payload_len) {
            *len = payload_len.unsigned_abs();
        }
        Ok(summary)
    }
}

/// The row under the record key `name` in a list, if it is selected. `summary` reads the row, and finds `None` if it has expired. The
/// caller adds the version of a row that cannot be read.
///
/// A row whose name is not a record key is in a list of all records only: no other selection can tell.
pub fn listed(
    name: &[u8],
    selection: &Selection,
    summary: impl FnOnce(&RecordKey) -> Result<Option<RecordSummary>, BackendError>,
) -> Option<Listed> {
    let text = String::from_utf8_lossy(name);
    let unreadable = |why: String| {
        Listed::Unreadable(Unreadable {
            name: text.clone().into_owned(),
            why,
            version: None,
        })
    };
    let Some(key) = RecordKey::from_encoded(&text) else {
        let is_of_all = *selection == Selection::all();
        return is_of_all.then(|| unreadable("its name is not a record key".to_owned()));
    };
    if !selection.matches(&key) {
        return None;
    }
    match summary(&key) {
        Ok(summary) => summary.map(Listed::Record),
        Err(error) => Some(unreadable(error.to_string())),
    }
}

/// How many records a page has, and how many rows its statement looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize {
    /// The most records.
    pub records: usize,
    /// The most rows.
    pub rows: usize,
}

impl PageSize {
    /// The size of a page of `limit` records. `all_match` says that the statement finds no rows but those of the selection.
    ///
    /// If other rows lie between those, the statement looks at 2,000 rows whatever the limit, so that a scan for few records is
    /// over after a bounded number of statements that are each of a bounded size.
    #[must_use]
    pub fn of(limit: usize, all_match: bool) -> Self {
        let records = limit.clamp(1, MOST_ROWS);
        let rows = if all_match { records } else { MOST_ROWS };
        Self { records, rows }
    }
}

/// The page of the rows that one statement has found, of which `listed` tells how they are listed. If the statement has found as many
/// rows as it may look at, or the page is full, the scan goes on after the row that `cursor` is asked about.
pub fn page<R>(
    rows: &[R],
    size: PageSize,
    mut listed: impl FnMut(&R) -> Option<Listed>,
    cursor: impl FnOnce(&R) -> Cursor,
) -> Page {
    let mut page = Page {
        commands: 1,
        ..Page::default()
    };
    let mut last = None;
    for row in rows {
        if page.records.len() == size.records {
            page.next = last.map(cursor);
            return page;
        }
        page.looked_at += 1;
        page.records.extend(listed(row));
        last = Some(row);
    }
    if rows.len() >= size.rows {
        page.next = last.map(cursor);
    }
    page
}

/// The cursor of a scan that goes on after the row with this key.
#[must_use]
pub fn cursor_of(key: &[u8]) -> Cursor {
    let hex = key.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a `String` does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    Cursor::new(hex)
}

/// Reads [`cursor_of`] back.
///
/// # Errors
///
/// [`BackendErrorKind::Config`] if the cursor was not made by [`cursor_of`].
pub fn cursor_bytes(cursor: &Cursor) -> Result<Vec<u8>, BackendError> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let byte = |pair: &[u8]| {
        let [high, low] = pair else { return None };
        u8::try_from(digit(high)? * 16 + digit(low)?).ok()
    };
    let bytes: Option<Vec<u8>> = cursor.as_str().as_bytes().chunks(2).map(byte).collect();
    let foreign = || BackendError::new(BackendErrorKind::Config, "the cursor is not one of this store");
    bytes.ok_or_else(foreign)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::State;
    use super::*;
    use crate::inspect::Phase;
    use crate::{Fingerprint, IdempotencyKey, Record, Scope, Token};

    const LEFT: Left = Left {
        lease: Duration::from_millis(7),
        expiry: Duration::from_secs(9),
    };

    fn columns(state: State) -> Columns {
        Columns {
            state: state.number().into(),
            token: vec![7; Token::LEN],
            attempt: 2,
            fingerprint: Fingerprint::NONE.to_bytes().to_vec(),
            lease_ms: 30_000,
            ttl_ms: 86_400_000,
            began_ms: 1_764_000_000_123,
            owner: "web:1".to_owned(),
            payload: (state == State::Stored).then(|| b"head".to_vec()),
        }
    }

    fn key(operation: &str) -> RecordKey {
        RecordKey::new(operation, &Scope::global(), &IdempotencyKey::of("k")).expect("a valid key")
    }

    #[test]
    fn a_row_in_each_state_has_its_claim_and_its_version() {
        for (state, phase) in [
            (State::Claimed, Phase::Claimed),
            (State::ClaimedWithSteps, Phase::Claimed),
            (State::Parked, Phase::Parked),
            (State::Stored, Phase::Completed),
            (State::NotStored, Phase::Completed),
            (State::Unknown, Phase::Completed),
        ] {
            let columns = columns(state);
            let version = columns.version().expect("a known state");
            assert_eq!((version.phase, version.token.to_bytes()), (phase, [7; 16]));
            assert!(State::of_phase(phase).any(|other| other == state));
            let details = columns.details(&key("o"), LEFT, RecordedSteps::new()).expect("whole");
            let summary = details.summary;
            assert_eq!((summary.attempt, summary.owner.as_str()), (2, "web:1"), "{state:?}");
            assert_eq!((summary.version(), summary.expires_in), (Some(version), LEFT.expiry));
            match details.record {
                Record::Claimed { claim, remaining } => {
                    assert_eq!((claim.token, remaining), (version.token, LEFT.lease));
                }
                Record::Parked { claim } => assert!(claim.has_steps),
                Record::Completed { .. } => {}
            }
        }
        let other = Columns {
            state: 9,
            ..columns(State::Claimed)
        };
        assert_eq!(other.version(), None);
        let spoilt = Columns {
            owner: "x".repeat(33),
            ..columns(State::NotStored)
        };
        assert!(spoilt.details(&key("o"), LEFT, RecordedSteps::new()).is_err());
    }

    #[test]
    fn a_list_shows_the_length_of_a_payload_that_was_not_read() {
        let stored = |payload: Option<&[u8]>, payload_len| {
            let payload = payload.map(<[u8]>::to_vec);
            let columns = Columns {
                payload,
                ..columns(State::Stored)
            };
            ListedColumns { columns, payload_len }.summary(&key("o"), LEFT)
        };
        for head in [Some(&b"head"[..]), None] {
            let expected = RecordState::Stored {
                len: 1_000_000,
                head: Bytes::from_static(head.unwrap_or_default()),
            };
            assert_eq!(stored(head, Some(1_000_000)).expect("whole").state, expected);
        }
        assert!(stored(Some(b""), None).is_err(), "no payload is there");
    }

    #[test]
    fn a_name_that_is_no_record_key_is_listed_among_all_records_alone() {
        let of_operation = Selection::all().with_operation("o").expect("a valid operation");
        let no_summary = |_: &RecordKey| Ok(None);
        for name in [&b"no key"[..], b"\xFF"] {
            let found = listed(name, &Selection::all(), no_summary);
            assert!(matches!(found, Some(Listed::Unreadable(_))), "{name:?}");
            assert_eq!(listed(name, &of_operation, no_summary), None);
        }
        let spoilt = |_: &RecordKey| Err(unreadable("it is spoilt"));
        assert_eq!(listed(key("other").as_str().as_bytes(), &of_operation, spoilt), None);
        let found = listed(key("o").as_str().as_bytes(), &of_operation, spoilt);
        let Some(Listed::Unreadable(Unreadable { name, why, .. })) = found else {
            panic!("{found:?}");
        };
        assert!(
            name == key("o").as_str() && why.contains("it is spoilt"),
            "{name} {why}"
        );
    }

    #[test]
    fn a_page_goes_on_after_the_last_row_that_it_has_looked_at() {
        let is_listed = |row: &u8| {
            let name = row.to_string();
            let (why, version) = (String::new(), None);
            (row % 2 == 1).then_some(Listed::Unreadable(Unreadable { name, why, version }))
        };
        let of = |rows: &[u8], records, looked| {
            let size = PageSize { records, rows: looked };
            let page = page(rows, size, is_listed, |row| cursor_of(&[*row]));
            let next = page
                .next
                .map(|next| cursor_bytes(&next).expect("it was made by this module"));
            (page.records.len(), page.looked_at, next)
        };
        assert_eq!(of(&[], 2, 4), (0, 0, None));
        assert_eq!(of(&[1, 2, 3], 2, 4), (2, 3, None));
        assert_eq!(of(&[1, 3, 5], 2, 4), (2, 2, Some(vec![3])));
        assert_eq!(of(&[2, 4, 6, 8], 2, 4), (0, 4, Some(vec![8])));
        assert_eq!(PageSize::of(0, true), PageSize { records: 1, rows: 1 });
        let narrow = PageSize {
            records: 7,
            rows: 2_000,
        };
        assert_eq!(PageSize::of(7, false), narrow);
    }

    #[test]
    fn a_cursor_is_read_back_and_no_other_text_is_one() {
        for bytes in [&b""[..], b"\0\xFF:k"] {
            assert_eq!(cursor_bytes(&cursor_of(bytes)).expect("it was made"), bytes);
        }
        for text in ["0", "0g", "+1", "ä"] {
            let error = cursor_bytes(&Cursor::new(text)).expect_err("it was not made");
            assert_eq!(error.kind(), BackendErrorKind::Config, "{text}");
        }
    }
}
