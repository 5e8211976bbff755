//! A record as a row of the table.
//!
//! Owns the meaning of the columns; `migrations/` has their names and types. A row that is not a whole record of a known state
//! is an error, never absent (IDEM-15). Does not own the statements that read and write rows: [`statements`](crate::statements).

use std::time::Duration;

use idem_core::claim::time_from_millis;
use idem_core::{BackendError, BackendErrorKind, Claim, Completion, Fingerprint, Owner, Record, RecordKey, Token};
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::protocol::Value;

const CLAIMED: i16 = 1;
const STORED: i16 = 2;
const NOT_STORED: i16 = 3;
// 4 and 5 are the numbers of states in Redis that this table does not have.
const UNKNOWN: i16 = 6;

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

    pub(crate) fn complete<'a>(&'a self, completion: &'a Completion, ttl: Duration) -> Vec<Value<'a>> {
        let (state, payload) = completed(completion);
        let payload = payload.map_or(Value::NoBytes, Value::Bytes);
        let outcome = [Value::State(state), payload, Value::Number(millis(ttl))];
        [&self.owner()[..], &outcome, &self.told()].concat()
    }
}

/// The columns that are read, in this order.
#[derive(Clone)]
pub(crate) struct Row {
    state: i16,
    token: Vec<u8>,
    attempt: i64,
    fingerprint: Vec<u8>,
    lease_ms: i64,
    ttl_ms: i64,
    began_ms: i64,
    owner: String,
    payload: Option<Vec<u8>>,
    expired: bool,
    /// The rest of the lease in milliseconds; not positive if it has lapsed.
    remaining: i64,
}

impl Row {
    pub(crate) fn of(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            state: row.try_get(0)?,
            token: row.try_get(1)?,
            attempt: row.try_get(2)?,
            fingerprint: row.try_get(3)?,
            lease_ms: row.try_get(4)?,
            ttl_ms: row.try_get(5)?,
            began_ms: row.try_get(6)?,
            owner: row.try_get(7)?,
            payload: row.try_get(8)?,
            expired: row.try_get(9)?,
            remaining: row.try_get(10)?,
        })
    }
}

/// A record that has not expired.
pub(crate) struct Found {
    pub(crate) record: Record,
    pub(crate) token: Token,
}

/// Reads the row that a claim returned: the existing row, or `None` if the claim was written.
pub(crate) fn read(row: &PgRow) -> sqlx::Result<Option<Row>> {
    let state: Option<i16> = row.try_get(0)?;
    state.map(|_| Row::of(row)).transpose()
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
        Completion::Unknown => (UNKNOWN, None),
    }
}

/// Decodes a row; `None` if it has expired, because an expired record counts as absent.
pub(crate) fn decode(row: Row) -> Result<Option<Found>, BackendError> {
    if row.expired {
        return Ok(None);
    }
    decode_parts(row)
        .map(Some)
        .map_err(|what| BackendError::new(BackendErrorKind::Unreadable, what))
}

fn decode_parts(row: Row) -> Result<Found, &'static str> {
    let token = row.token.try_into().map_err(|_| "its token is of another length")?;
    let token = Token::from_bytes(token);
    let fingerprint = row.fingerprint.try_into();
    let fingerprint = Fingerprint::from_bytes(fingerprint.map_err(|_| "its fingerprint is of another length")?);
    let completion = match (row.state, row.payload) {
        (CLAIMED, None) => {
            let claim = Claim {
                token,
                attempt: row.attempt.try_into().map_err(|_| "its attempt is out of range")?,
                fingerprint,
                lease: duration(row.lease_ms)?,
                ttl: duration(row.ttl_ms)?,
                began_at: time_from_millis(row.began_ms.try_into().map_err(|_| "it began before 1970")?),
                owner: Owner::from_bytes(row.owner.as_bytes()).ok_or("its owner is too long")?,
            };
            // A negative rest means that the lease has lapsed.
            let remaining = duration(row.remaining.max(0))?;
            let record = Record::Claimed { claim, remaining };
            return Ok(Found { record, token });
        }
        (STORED, Some(payload)) => Completion::Stored(payload.into()),
        (NOT_STORED, None) => Completion::NotStored,
        (UNKNOWN, None) => Completion::Unknown,
        (CLAIMED | STORED | NOT_STORED | UNKNOWN, _) => return Err("its state and its payload do not go together"),
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
        Row {
            state: CLAIMED,
            token,
            attempt: 2,
            fingerprint,
            lease_ms: 30_000,
            ttl_ms: 86_400_000,
            began_ms: 1_764_000_000_123,
            owner: "web:1".to_owned(),
            payload: None,
            expired: false,
            remaining: 7,
        }
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
            began_at: time_from_millis(1_764_000_000_123),
            owner: Owner::new("web:1"),
        };
        for (left, remaining) in [(7, Duration::from_millis(7)), (0, Duration::ZERO), (-1, Duration::ZERO)] {
            let claim = claim.clone();
            let mut row = row();
            row.remaining = left;
            assert_eq!(read(row), Ok(Some(Record::Claimed { claim, remaining })));
        }
        for completion in [
            Completion::Stored(Bytes::new()),
            Completion::Stored(Bytes::from_static(b"\0\xFFpayload")),
            Completion::NotStored,
            Completion::Unknown,
        ] {
            let mut row = row();
            let (state, payload) = completed(&completion);
            (row.state, row.payload) = (state, payload.map(<[u8]>::to_vec));
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
        let spoilt: [fn(&mut Row); 16] = [
            |row| row.state = 0,
            |row| row.state = 4,
            |row| row.state = 5,
            |row| row.state = 7,
            |row| row.state = STORED,
            |row| (row.state, row.payload) = (NOT_STORED, Some(Vec::new())),
            |row| (row.state, row.payload) = (UNKNOWN, Some(Vec::new())),
            |row| row.payload = Some(Vec::new()),
            |row| row.token.truncate(15),
            |row| row.fingerprint.push(0),
            |row| row.attempt = -1,
            |row| row.attempt = i64::from(u32::MAX) + 1,
            |row| row.lease_ms = -1,
            |row| row.ttl_ms = -1,
            |row| row.began_ms = -1,
            |row| row.owner = "x".repeat(33),
        ];
        for (index, spoil) in spoilt.into_iter().enumerate() {
            let mut row = row();
            spoil(&mut row);
            assert_eq!(read(row.clone()), Err(BackendErrorKind::Unreadable), "{index}");
            row.expired = true;
            assert_eq!(read(row), Ok(None), "{index}");
        }
    }
}
