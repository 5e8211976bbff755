//! A record as a row of the table.
//!
//! Owns the meaning of the columns; `migrations/` has their names and types. A row that is not a whole record of a known state
//! is an error, never absent (IDEM-15). Does not own the statements that read and write rows: [`table`](crate::table).

use std::time::Duration;

use idem_core::claim::{millis_of_time, time_from_millis};
use idem_core::{BackendError, BackendErrorKind, Claim, Completion, Fingerprint, Owner, Record, RecordKey, Token};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments as _, error::BoxDynError};

use crate::clock::{Clock, Moment, millis};

const CLAIMED: i64 = 1;
const STORED: i64 = 2;
const NOT_STORED: i64 = 3;
// 4 and 5 are the numbers of states in Redis that this table does not have.
const UNKNOWN: i64 = 6;

/// The parameters of a statement; [`Statements`](crate::table::Statements) has their numbers.
pub(crate) struct Parameters {
    arguments: SqliteArguments,
}

impl Parameters {
    /// The parameters of a statement about the record under `key`.
    pub(crate) fn of(key: &RecordKey) -> Result<Self, BoxDynError> {
        let mut arguments = SqliteArguments::default();
        arguments.add(key.as_str())?;
        Ok(Self { arguments })
    }

    /// The parameters of [`Statements::sweep`](crate::table::Statements).
    pub(crate) fn limit(limit: u32) -> Result<Self, BoxDynError> {
        let mut arguments = SqliteArguments::default();
        arguments.add(i64::from(limit))?;
        Ok(Self { arguments })
    }

    /// The parameters of a statement by the owner of the claim with `token`, which keeps the record until `expires_ms`.
    pub(crate) fn own(key: &RecordKey, token: Token) -> Result<Self, BoxDynError> {
        let mut own = Self::of(key)?;
        own.arguments.add(token.to_bytes().to_vec())?;
        Ok(own)
    }

    /// The parameters of a statement that writes `claim`, acquired at `now`.
    pub(crate) fn claim(key: &RecordKey, claim: &Claim, (clock, now): (&Clock, Moment)) -> Result<Self, BoxDynError> {
        let mut own = Self::own(key, claim.token)?;
        let began_at = i64::try_from(millis_of_time(claim.began_at)).unwrap_or(i64::MAX);
        let arguments = &mut own.arguments;
        arguments.add(i64::from(claim.attempt))?;
        arguments.add(claim.fingerprint.to_bytes().to_vec())?;
        arguments.add(millis(claim.lease))?;
        arguments.add(millis(claim.ttl))?;
        arguments.add(began_at)?;
        arguments.add(claim.owner.as_str())?;
        own.until(Some(claim.lease), claim.lease.saturating_add(claim.ttl), (clock, now))
    }

    /// Adds `?3` and `?4`, the state and the payload of `completion`.
    pub(crate) fn completion(mut self, completion: &Completion) -> Result<Self, BoxDynError> {
        let (state, payload) = completed(completion);
        self.arguments.add(state)?;
        self.arguments.add(payload.map(<[u8]>::to_vec))?;
        Ok(self)
    }

    /// Adds `?9` to `?13`: when the lease lapses and the record expires, the boot, and the time.
    pub(crate) fn until(
        mut self,
        lease: Option<Duration>,
        kept: Duration,
        (clock, now): (&Clock, Moment),
    ) -> Result<Self, BoxDynError> {
        self.fill(8)?;
        self.arguments.add(lease.map(|lease| now.lapses_ns(lease)))?;
        self.arguments.add(now.expires_ms(kept))?;
        self.at((clock, now))
    }

    /// Adds `?11` to `?13`: the boot, and the time.
    pub(crate) fn at(mut self, (clock, now): (&Clock, Moment)) -> Result<Self, BoxDynError> {
        self.fill(10)?;
        self.arguments.add(clock.boot())?;
        self.arguments.add(now.boot_ns())?;
        self.arguments.add(now.day_ms())?;
        Ok(self)
    }

    /// Adds `?14`: the token of another claim.
    pub(crate) fn over(mut self, lapsed: Token) -> Result<Self, BoxDynError> {
        self.arguments.add(lapsed.to_bytes().to_vec())?;
        Ok(self)
    }

    fn fill(&mut self, len: usize) -> Result<(), BoxDynError> {
        while self.arguments.len() < len {
            self.arguments.add(None::<i64>)?;
        }
        Ok(())
    }

    pub(crate) fn into_arguments(self) -> SqliteArguments {
        self.arguments
    }
}

/// The columns `state` and `payload` of a completion.
pub(crate) fn completed(completion: &Completion) -> (i64, Option<&[u8]>) {
    match completion {
        Completion::Stored(payload) => (STORED, Some(payload)),
        Completion::NotStored => (NOT_STORED, None),
        Completion::Unknown => (UNKNOWN, None),
    }
}

/// The columns that are read.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    state: i64,
    token: Vec<u8>,
    attempt: i64,
    fingerprint: Vec<u8>,
    lease_ms: i64,
    ttl_ms: i64,
    began_ms: i64,
    owner: String,
    boot: String,
    lapses_ns: i64,
    expires_ms: i64,
    payload: Option<Vec<u8>>,
}

/// A record that has not expired.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) record: Record,
    pub(crate) token: Token,
}

impl Row {
    pub(crate) fn of(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            state: row.try_get(0)?,
            token: row.try_get(1)?,
            attempt: row.try_get(2)?,
            fingerprint: row.try_get(3)?,
            lease_ms: row.try_get(4)?,
            ttl_ms: row.try_get(5)?,
            began_ms: row.try_get(6)?,
            owner: row.try_get(7)?,
            boot: row.try_get(8)?,
            lapses_ns: row.try_get(9)?,
            expires_ms: row.try_get(10)?,
            payload: row.try_get(11)?,
        })
    }

    /// The rest of a claim's lease: nothing if it has lapsed, or was acquired before the last boot.
    fn remaining(&self, (clock, now): (&Clock, Moment)) -> Duration {
        if self.boot != clock.boot() {
            return Duration::ZERO;
        }
        let nanos = self.lapses_ns.saturating_sub(now.boot_ns());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }

    /// Decodes the row; `None` if it has expired, because an expired record counts as absent.
    pub(crate) fn decode(self, at: (&Clock, Moment)) -> Result<Option<Found>, BackendError> {
        let is_held = self.state == CLAIMED && !self.remaining(at).is_zero();
        if self.expires_ms <= at.1.day_ms() && !is_held {
            return Ok(None);
        }
        self.decode_live(at)
            .map(Some)
            .map_err(|what| BackendError::new(BackendErrorKind::Unreadable, what))
    }

    fn decode_live(self, at: (&Clock, Moment)) -> Result<Found, &'static str> {
        let remaining = self.remaining(at);
        let token = self.token.try_into().map_err(|_| "its token is of another length")?;
        let token = Token::from_bytes(token);
        let fingerprint = self.fingerprint.try_into();
        let fingerprint = Fingerprint::from_bytes(fingerprint.map_err(|_| "its fingerprint is of another length")?);
        let completion = match (self.state, self.payload) {
            (CLAIMED, None) => {
                let claim = Claim {
                    token,
                    attempt: self.attempt.try_into().map_err(|_| "its attempt is out of range")?,
                    fingerprint,
                    lease: duration(self.lease_ms)?,
                    ttl: duration(self.ttl_ms)?,
                    began_at: time_from_millis(self.began_ms.try_into().map_err(|_| "it began before 1970")?),
                    owner: Owner::from_bytes(self.owner.as_bytes()).ok_or("its owner is too long")?,
                };
                let record = Record::Claimed { claim, remaining };
                return Ok(Found { record, token });
            }
            (STORED, Some(payload)) => Completion::Stored(payload.into()),
            (NOT_STORED, None) => Completion::NotStored,
            (UNKNOWN, None) => Completion::Unknown,
            (CLAIMED | STORED | NOT_STORED | UNKNOWN, _) => {
                return Err("its state and its payload do not go together");
            }
            _ => return Err("its state is of another version"),
        };
        let record = Record::Completed {
            fingerprint,
            completion,
        };
        Ok(Found { record, token })
    }
}

fn duration(millis: i64) -> Result<Duration, &'static str> {
    let millis = u64::try_from(millis).map_err(|_| "a duration is negative")?;
    Ok(Duration::from_millis(millis))
}
