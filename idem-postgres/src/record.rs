//! A record as a row of the table.
//!
//! Owns the meaning of the columns; `migrations/` has their names and types. A row that is not a whole record of a known state
//! is an error, never absent (IDEM-15). Does not own the statements that read and write rows: [`statements`](crate::statements).

use std::time::Duration;

use idem_core::{BackendError, BackendErrorKind, Claim, Completion, Fingerprint, Record, RecordKey, Token};
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgRow;
use sqlx::{FromRow as _, Row as _};

use crate::protocol::Value;

const CLAIMED: i16 = 1;
const STORED: i16 = 2;
const NOT_STORED: i16 = 3;

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
        let id = Id::of(key);
        Self {
            id,
            token: claim.token.to_bytes(),
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

    pub(crate) fn complete<'a>(&'a self, completion: &'a Completion) -> Vec<Value<'a>> {
        let (state, payload) = completed(completion);
        let outcome = [Value::State(state), payload.map_or(Value::NoBytes, Value::Bytes)];
        [&self.owner()[..], &outcome, &self.told()].concat()
    }
}

/// The columns that are read, in this order: state, token, attempt, fingerprint, lease, ttl, payload, whether the record has
/// expired, and the rest of the lease.
pub(crate) type Row = (i16, Vec<u8>, i64, Vec<u8>, i64, i64, Option<Vec<u8>>, bool, i64);

/// A record that has not expired.
pub(crate) struct Found {
    pub(crate) record: Record,
    pub(crate) token: Token,
}

/// Reads the row that a claim returned: the existing row, or `None` if the claim was written.
pub(crate) fn read(row: &PgRow) -> sqlx::Result<Option<Row>> {
    let state: Option<i16> = row.try_get(0)?;
    state.map(|_| Row::from_row(row)).transpose()
}

/// A duration in milliseconds. The limits of the engine's policies keep it far below the maximum.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The columns `state` and `payload` of a completion.
fn completed(completion: &Completion) -> (i16, Option<&[u8]>) {
    match completion {
        Completion::Stored(payload) => (STORED, Some(payload)),
        Completion::NotStored => (NOT_STORED, None),
    }
}

/// Decodes a row; `None` if it has expired, because an expired record counts as absent.
pub(crate) fn decode(row: Row) -> Result<Option<Found>, BackendError> {
    if row.7 {
        return Ok(None);
    }
    decode_parts(row)
        .map(Some)
        .map_err(|what| BackendError::new(BackendErrorKind::Unreadable, what))
}

fn decode_parts(row: Row) -> Result<Found, &'static str> {
    let (state, token, attempt, fingerprint, lease, ttl, payload, _, remaining) = row;
    let token = token.try_into().map_err(|_| "its token is of another length")?;
    let token = Token::from_bytes(token);
    let fingerprint = fingerprint.try_into();
    let fingerprint = Fingerprint::from_bytes(fingerprint.map_err(|_| "its fingerprint is of another length")?);
    let completion = match (state, payload) {
        (CLAIMED, None) => {
            let claim = Claim {
                token,
                attempt: attempt.try_into().map_err(|_| "its attempt is out of range")?,
                fingerprint,
                lease: duration(lease)?,
                ttl: duration(ttl)?,
            };
            // A negative rest means that the lease has lapsed.
            let remaining = duration(remaining.max(0))?;
            let record = Record::Claimed { claim, remaining };
            return Ok(Found { record, token });
        }
        (STORED, Some(payload)) => Completion::Stored(payload.into()),
        (NOT_STORED, None) => Completion::NotStored,
        (CLAIMED..=NOT_STORED, _) => return Err("its state and its payload do not go together"),
        _ => return Err("its state is of another version"),
    };
    let record = Record::Completed {
        fingerprint,
        completion,
    };
    Ok(Found { record, token })
}

fn duration(millis: i64) -> Result<Duration, &'static str> {
    let millis = u64::try_from(millis).map_err(|_| "a duration is negative")?;
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use idem_core::{IdempotencyKey, Scope};

    use super::*;

    fn row() -> Row {
        let token = b"0123456789abcdef".to_vec();
        let fingerprint = Fingerprint::new(1, [0xEE; 32]).to_bytes().to_vec();
        (CLAIMED, token, 2, fingerprint, 30_000, 86_400_000, None, false, 7)
    }

    fn read(row: Row) -> Result<Option<Record>, BackendErrorKind> {
        let found = decode(row).map_err(|error| error.kind())?;
        Ok(found.map(|found| found.record))
    }

    #[test]
    fn ids_are_frozen() {
        let key = RecordKey::new("POST /orders", &Scope::of("acme"), &IdempotencyKey::of("k")).expect("a valid key");
        assert_eq!(Id::of(&key).message(), "3eca7c2b168cab3e05aa03fc7b7dea6e");
    }

    #[test]
    fn every_state_is_read() {
        let claim = Claim {
            token: Token::from_bytes(*b"0123456789abcdef"),
            attempt: 2,
            fingerprint: Fingerprint::new(1, [0xEE; 32]),
            lease: Duration::from_secs(30),
            ttl: Duration::from_hours(24),
        };
        for (left, remaining) in [(7, Duration::from_millis(7)), (0, Duration::ZERO), (-1, Duration::ZERO)] {
            let claim = claim.clone();
            let mut row = row();
            row.8 = left;
            assert_eq!(read(row), Ok(Some(Record::Claimed { claim, remaining })));
        }
        for completion in [
            Completion::Stored(Bytes::new()),
            Completion::Stored(Bytes::from_static(b"\0\xFFpayload")),
            Completion::NotStored,
        ] {
            let mut row = row();
            let (state, payload) = completed(&completion);
            (row.0, row.6) = (state, payload.map(<[u8]>::to_vec));
            let fingerprint = claim.fingerprint;
            assert_eq!(
                read(row),
                Ok(Some(Record::Completed {
                    fingerprint,
                    completion
                }))
            );
        }
    }

    #[test]
    fn whatever_is_not_a_record_is_unreadable_until_it_expires() {
        let spoilt: [fn(&mut Row); 11] = [
            |row| row.0 = 0,
            |row| row.0 = 4,
            |row| row.0 = STORED,
            |row| (row.0, row.6) = (NOT_STORED, Some(Vec::new())),
            |row| row.6 = Some(Vec::new()),
            |row| row.1.truncate(15),
            |row| row.3.push(0),
            |row| row.2 = -1,
            |row| row.2 = i64::from(u32::MAX) + 1,
            |row| row.4 = -1,
            |row| row.5 = -1,
        ];
        for (index, spoil) in spoilt.into_iter().enumerate() {
            let mut row = row();
            spoil(&mut row);
            assert_eq!(read(row.clone()), Err(BackendErrorKind::Unreadable), "{index}");
            row.7 = true;
            assert_eq!(read(row), Ok(None), "{index}");
        }
    }
}
