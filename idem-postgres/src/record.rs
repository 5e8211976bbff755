//! A record as a row of the table.
//!
//! Owns the order in which columns are read, and what the server says of time; `migrations/` has their names and types. Does not own
//! what makes columns a record, [`idem_core::columns`], nor the statements that read and write rows,
//! [`statements`](crate::statements).

use std::time::Duration;

use idem_core::columns::{Columns, Left, completed};
pub(crate) use idem_core::columns::{Found, millis};
use idem_core::{BackendError, Claim, Completion, RecordKey, Token};
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::protocol::Value;

/// The primary key of a record: a hash of the record key, so that its length is fixed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id([u8; 32]);

impl Id {
    pub(crate) fn of(key: &RecordKey) -> Self {
        Self(Sha256::digest(key.as_str()).into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The message to the waiters of the record. If two records have the same message, some waiters look again for nothing.
    pub(crate) fn message(&self) -> String {
        let mut half = [0; 16];
        half.copy_from_slice(&self.0[..16]);
        format!("{:032x}", u128::from_be_bytes(half))
    }

    /// The advisory lock of the record's waiters. If two records have the same lock, some messages are sent for nothing.
    pub(crate) fn lock(&self) -> i64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        i64::from_be_bytes(first)
    }
}

/// The values of a statement that ends a claim and notifies the waiters.
pub(crate) struct End {
    id: Id,
    token: [u8; 16],
    channel: String,
    message: String,
}

impl End {
    pub(crate) fn new(key: &RecordKey, claim: &Claim, channel: String) -> Self {
        Self::of(key, claim.token, channel)
    }

    /// The end of the claim with `token`, by its owner or by an operator.
    pub(crate) fn of(key: &RecordKey, token: Token, channel: String) -> Self {
        let id = Id::of(key);
        Self {
            id,
            token: token.to_bytes(),
            channel,
            message: id.message(),
        }
    }

    /// The values that identify the claim.
    pub(crate) fn owner(&self) -> [Value<'_>; 2] {
        [Value::Bytes(self.id.as_bytes()), Value::Bytes(&self.token)]
    }

    /// The values that identify the waiters.
    fn told(&self) -> [Value<'_>; 3] {
        [
            Value::Number(self.id.lock()),
            Value::Text(&self.channel),
            Value::Text(&self.message),
        ]
    }

    pub(crate) fn release(&self) -> Vec<Value<'_>> {
        [&self.owner()[..], &self.told()].concat()
    }

    pub(crate) fn complete<'a>(&'a self, completion: &'a Completion, ttl: Duration) -> Vec<Value<'a>> {
        let (state, payload) = completed(completion);
        let payload = payload.map_or(Value::NoBytes, Value::Bytes);
        let outcome = [Value::State(state.number()), payload, Value::Number(millis(ttl))];
        [&self.owner()[..], &outcome, &self.told()].concat()
    }
}

/// The columns that are read.
#[derive(Clone)]
pub(crate) struct Row {
    columns: Columns,
    expired: bool,
    /// The rest of the lease in milliseconds; not positive if it has lapsed.
    remaining: i64,
}

impl Row {
    pub(crate) fn of(row: &PgRow) -> sqlx::Result<Self> {
        let state: i16 = row.try_get(0)?;
        let columns = Columns {
            state: state.into(),
            token: row.try_get(1)?,
            attempt: row.try_get(2)?,
            fingerprint: row.try_get(3)?,
            lease_ms: row.try_get(4)?,
            ttl_ms: row.try_get(5)?,
            began_ms: row.try_get(6)?,
            owner: row.try_get(7)?,
            payload: row.try_get(8)?,
        };
        Ok(Self {
            columns,
            expired: row.try_get(9)?,
            remaining: row.try_get(10)?,
        })
    }
}

/// A row that an operator sees: the columns of [`Row`], and how long until the record expires.
pub(crate) struct Seen {
    row: Row,
    /// In milliseconds.
    expires_in: i64,
}

impl Seen {
    pub(crate) fn of(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            row: Row::of(row)?,
            expires_in: row.try_get(11)?,
        })
    }

    /// The columns, and what is left of them; `None` if the record has expired.
    pub(crate) fn left(self) -> Option<(Columns, Left)> {
        if self.row.expired {
            return None;
        }
        let columns = self.row.columns;
        let duration = |millis: i64| Duration::from_millis(u64::try_from(millis).unwrap_or(0));
        let lease = if columns.is_claimed() {
            duration(self.row.remaining)
        } else {
            Duration::ZERO
        };
        let expiry = duration(self.expires_in);
        Some((columns, Left { lease, expiry }))
    }
}

/// Reads the row that a claim returned: the existing row, or `None` if the claim was written.
pub(crate) fn read(row: &PgRow) -> sqlx::Result<Option<Row>> {
    let state: Option<i16> = row.try_get(0)?;
    state.map(|_| Row::of(row)).transpose()
}

/// Decodes a row; `None` if it has expired, because an expired record counts as absent.
pub(crate) fn decode(row: Row) -> Result<Option<Found>, BackendError> {
    if row.expired {
        return Ok(None);
    }
    let remaining = Duration::from_millis(u64::try_from(row.remaining).unwrap_or(0));
    row.columns.decode(remaining).map(Some)
}

#[cfg(test)]
mod tests {
    use idem_core::{BackendErrorKind, Fingerprint, IdempotencyKey, Record, Scope};

    use super::*;

    fn row() -> Row {
        let columns = Columns {
            state: 1,
            token: b"0123456789abcdef".to_vec(),
            attempt: 2,
            fingerprint: Fingerprint::new(1, [0xEE; 32]).to_bytes().to_vec(),
            lease_ms: 30_000,
            ttl_ms: 86_400_000,
            began_ms: 1_764_000_000_123,
            owner: "web:1".to_owned(),
            payload: None,
        };
        Row {
            columns,
            expired: false,
            remaining: 7,
        }
    }

    #[test]
    fn ids_are_frozen() {
        let key = RecordKey::new("POST /orders", &Scope::of("acme"), &IdempotencyKey::of("k")).expect("a valid key");
        assert_eq!(Id::of(&key).message(), "3eca7c2b168cab3e05aa03fc7b7dea6e");
    }

    #[test]
    fn a_lease_that_has_lapsed_has_no_rest() {
        for (left, expected) in [(7, Duration::from_millis(7)), (0, Duration::ZERO), (-1, Duration::ZERO)] {
            let found = decode(Row {
                remaining: left,
                ..row()
            })
            .expect("a record");
            let Some(Record::Claimed { remaining, .. }) = found.map(|found| found.record) else {
                panic!("no claim with {left} ms left");
            };
            assert_eq!(remaining, expected);
        }
    }

    #[test]
    fn what_is_not_a_record_is_unreadable_until_it_expires() {
        let mut row = row();
        row.columns.state = 8;
        let unreadable = decode(row.clone()).map_err(|error| error.kind()).map(|_| ());
        assert_eq!(unreadable, Err(BackendErrorKind::Unreadable));
        row.expired = true;
        assert!(matches!(decode(row), Ok(None)));
    }
}
