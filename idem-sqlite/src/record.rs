//! A record as a row of the table.
//!
//! Owns the order in which columns are read, the numbers of parameters, and what the clocks say of a row; `migrations/` has the
//! names and types of columns. Does not own what makes columns a record, [`idem_core::columns`], nor the statements that read and
//! write rows, [`table`](crate::table).

use std::time::{Duration, SystemTime};

use idem_core::claim::millis_of_time;
pub(crate) use idem_core::columns::Found;
use idem_core::columns::{self, Columns, Left, ListedColumns, millis};
use idem_core::{BackendError, Claim, Completion, RecordKey, Token};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments as _, error::BoxDynError};

use crate::clock::{Clock, Moment};

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

    /// No parameters yet.
    pub(crate) fn none() -> Self {
        let arguments = SqliteArguments::default();
        Self { arguments }
    }

    /// The parameters of [`Statements::sweep`](crate::table::Statements).
    pub(crate) fn limit(limit: u32) -> Result<Self, BoxDynError> {
        let mut arguments = SqliteArguments::default();
        arguments.add(i64::from(limit))?;
        Ok(Self { arguments })
    }

    /// The parameters of [`Statements::write_step`](crate::table::Statements).
    pub(crate) fn step(key: &RecordKey, name: &str, step: &[u8]) -> Result<Self, BoxDynError> {
        let mut parameters = Self::of(key)?;
        parameters.arguments.add(name)?;
        parameters.arguments.add(step.to_vec())?;
        Ok(parameters)
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

    /// Adds `?14` and `?15`: the token of a claim, and its state, with steps or without.
    pub(crate) fn over(mut self, (lapsed, has_steps): (Token, bool)) -> Result<Self, BoxDynError> {
        let state = if has_steps {
            columns::State::ClaimedWithSteps
        } else {
            columns::State::Claimed
        };
        self.arguments.add(lapsed.to_bytes().to_vec())?;
        self.arguments.add(i64::from(state.number()))?;
        Ok(self)
    }

    /// The parameters of [`OperatorStatements::scan`](crate::inspect::OperatorStatements).
    pub(crate) fn range(lower: &[u8], upper: Option<&str>, limit: usize) -> Result<Self, BoxDynError> {
        let mut arguments = SqliteArguments::default();
        arguments.add(lower.to_vec())?;
        match upper {
            Some(upper) => arguments.add(upper.to_owned())?,
            // Bytes are greater than every text.
            None => arguments.add(vec![0_u8])?,
        }
        arguments.add(i64::try_from(limit).unwrap_or(i64::MAX))?;
        Ok(Self { arguments })
    }

    /// Adds `?3`: when attempt 1 began.
    pub(crate) fn began(mut self, began_at: SystemTime) -> Result<Self, BoxDynError> {
        let began_at = i64::try_from(millis_of_time(began_at)).unwrap_or(i64::MAX);
        self.arguments.add(began_at)?;
        Ok(self)
    }

    /// Adds `?2`: the name of a step.
    pub(crate) fn name(mut self, name: &str) -> Result<Self, BoxDynError> {
        self.arguments.add(name)?;
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
    let (state, payload) = columns::completed(completion);
    (state.number().into(), payload)
}

/// The columns that are read.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    columns: Columns,
    boot: String,
    lapses_ns: i64,
    expires_ms: i64,
}

impl Row {
    pub(crate) fn of(row: &SqliteRow) -> sqlx::Result<Self> {
        let columns = Columns {
            state: row.try_get(0)?,
            token: row.try_get(1)?,
            attempt: row.try_get(2)?,
            fingerprint: row.try_get(3)?,
            lease_ms: row.try_get(4)?,
            ttl_ms: row.try_get(5)?,
            began_ms: row.try_get(6)?,
            owner: row.try_get(7)?,
            payload: row.try_get(11)?,
        };
        Ok(Self {
            columns,
            boot: row.try_get(8)?,
            lapses_ns: row.try_get(9)?,
            expires_ms: row.try_get(10)?,
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

    /// What is left of the row; `None` if it has expired, because an expired record counts as absent.
    pub(crate) fn left(&self, at: (&Clock, Moment)) -> Option<Left> {
        let lease = if self.columns.is_claimed() {
            self.remaining(at)
        } else {
            Duration::ZERO
        };
        let expiry = self.expires_ms.saturating_sub(at.1.day_ms());
        let expiry = Duration::from_millis(u64::try_from(expiry).unwrap_or(0)).max(lease);
        (!expiry.is_zero()).then_some(Left { lease, expiry })
    }

    /// Decodes the row; `None` if it has expired.
    pub(crate) fn decode(self, at: (&Clock, Moment)) -> Result<Option<Found>, BackendError> {
        let left = self.left(at);
        left.map(|left| self.columns.decode(left.lease)).transpose()
    }

    pub(crate) fn columns(&self) -> &Columns {
        &self.columns
    }

    pub(crate) fn into_columns(self) -> Columns {
        self.columns
    }

    /// The columns of a row for a list, whose payload is only its beginning.
    pub(crate) fn into_listed(self, payload_len: Option<i64>) -> ListedColumns {
        let columns = self.columns;
        ListedColumns { columns, payload_len }
    }
}
