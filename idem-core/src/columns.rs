//! A record as columns of a table, for backends that keep records in SQL.
//!
//! Owns the numbers of the states, and what makes the columns of a row a record. A row that is not a whole record of a known state is
//! an error, never absent (IDEM-15). Does not own tables, statements and clocks: a backend reads the columns, and says whether the
//! row has expired and how much of a lease is left.
//!
//! | module | owns |
//! |---|---|
//! | `listed` | rows as an operator sees them, and the pages of a scan |
//!
//! ```
//! use std::time::Duration;
//!
//! use idem_core::columns::{Columns, State};
//! use idem_core::{BackendErrorKind, Completion, Fingerprint, Record, Token};
//!
//! let token = Token::random();
//! let columns = Columns {
//!     state: State::NotStored.number().into(),
//!     token: token.to_bytes().to_vec(),
//!     attempt: 1,
//!     fingerprint: Fingerprint::NONE.to_bytes().to_vec(),
//!     lease_ms: 30_000,
//!     ttl_ms: 86_400_000,
//!     began_ms: 1_764_000_000_000,
//!     owner: "web:1".to_owned(),
//!     payload: None,
//! };
//! let found = columns.clone().decode(Duration::ZERO)?;
//! assert_eq!(found.token, token);
//! let (fingerprint, completion) = (Fingerprint::NONE, Completion::NotStored);
//! assert_eq!(found.record, Record::Completed { fingerprint, completion });
//!
//! let of_a_later_version = Columns { state: 9, ..columns };
//! let error = of_a_later_version.decode(Duration::ZERO).unwrap_err();
//! assert_eq!(error.kind(), BackendErrorKind::Unreadable);
//! # Ok::<(), idem_core::BackendError>(())
//! ```

mod listed;

use std::fmt;
use std::time::Duration;

pub use self::listed::{Left, ListedColumns, PageSize, cursor_bytes, cursor_of, listed, page};
use crate::claim::time_from_millis;
use crate::inspect::Phase;
use crate::{BackendError, BackendErrorKind, Claim, Completion, Fingerprint, Owner, Record, Token};

/// What the column `state` says. A later version that writes rows in another form takes new numbers.
// 5 is the number of a state in Redis that no table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
#[non_exhaustive]
pub enum State {
    /// A handler has claimed the key.
    Claimed = 1,
    /// Completed, with a payload.
    Stored = 2,
    /// Completed, without a payload.
    NotStored = 3,
    /// A handler has claimed the key, and steps are recorded.
    ClaimedWithSteps = 4,
    /// Completed, and it is not known whether the handler took effect.
    Unknown = 6,
    /// An attempt has ended without an outcome, and its steps are kept.
    Parked = 7,
}

impl State {
    const ALL: [Self; 6] = [
        Self::Claimed,
        Self::Stored,
        Self::NotStored,
        Self::ClaimedWithSteps,
        Self::Unknown,
        Self::Parked,
    ];

    /// The number that is stored.
    #[must_use]
    pub const fn number(self) -> i16 {
        self as i16
    }

    /// Reads [`State::number`] back.
    fn of(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|state| i64::from(state.number()) == number)
    }

    /// How far a record in this state has come.
    #[must_use]
    pub const fn phase(self) -> Phase {
        match self {
            Self::Claimed | Self::ClaimedWithSteps => Phase::Claimed,
            Self::Parked => Phase::Parked,
            Self::Stored | Self::NotStored | Self::Unknown => Phase::Completed,
        }
    }

    /// The states of the records that have come as far as `phase`.
    pub fn of_phase(phase: Phase) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |state| state.phase() == phase)
    }
}

/// The columns `state` and `payload` of a completion.
#[must_use]
pub fn completed(completion: &Completion) -> (State, Option<&[u8]>) {
    match completion {
        Completion::Stored(payload) => (State::Stored, Some(payload)),
        Completion::NotStored => (State::NotStored, None),
        Completion::Unknown => (State::Unknown, None),
    }
}

/// A duration in whole milliseconds, as columns have them. The limits of the engine's policies keep it far below the maximum.
#[must_use]
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The columns of a row that has not expired.
#[derive(Clone, PartialEq, Eq)]
pub struct Columns {
    /// [`State::number`]
    pub state: i64,
    /// [`Token::to_bytes`] of the claim, also once it is completed.
    pub token: Vec<u8>,
    /// [`Claim::attempt`]
    pub attempt: i64,
    /// [`Fingerprint::to_bytes`]
    pub fingerprint: Vec<u8>,
    /// [`Claim::lease`], in milliseconds.
    pub lease_ms: i64,
    /// [`Claim::ttl`], in milliseconds.
    pub ttl_ms: i64,
    /// [`Claim::began_at`], in milliseconds since 1970.
    pub began_ms: i64,
    /// [`Claim::owner`]
    pub owner: String,
    /// The payload of [`Completion::Stored`], and NULL in every other state.
    pub payload: Option<Vec<u8>>,
}

/// A record that has not expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The record.
    pub record: Record,
    /// The token of its claim.
    pub token: Token,
}

/// A payload may hold what clients keep secret, so only its length is shown.
impl fmt::Debug for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Columns")
            .field("state", &self.state)
            .field("attempt", &self.attempt)
            .field("owner", &self.owner)
            .field("payload_len", &self.payload.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

impl Columns {
    /// Whether the row is a claim, whose lease counts.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        let claimed = [State::Claimed, State::ClaimedWithSteps];
        claimed.into_iter().any(|state| self.state == i64::from(state.number()))
    }

    /// Decodes the row; `remaining` is what is left of the lease if it is a claim.
    ///
    /// # Errors
    ///
    /// [`BackendErrorKind::Unreadable`] if the row is not a whole record of a known state.
    pub fn decode(self, remaining: Duration) -> Result<Found, BackendError> {
        self.read(remaining).map_err(unreadable)
    }

    fn read(self, remaining: Duration) -> Result<Found, &'static str> {
        let (token, fingerprint, state) = self.identity()?;
        let completion = match (state, &self.payload) {
            (State::Claimed | State::ClaimedWithSteps, None) => {
                let claim = self.claim()?;
                let record = Record::Claimed { claim, remaining };
                return Ok(Found { record, token });
            }
            (State::Parked, None) => {
                let record = Record::Parked { claim: self.claim()? };
                return Ok(Found { record, token });
            }
            (State::Stored, Some(_)) => Completion::Stored(self.payload.unwrap_or_default().into()),
            (State::NotStored, None) => Completion::NotStored,
            (State::Unknown, None) => Completion::Unknown,
            _ => return Err("its state and its payload do not go together"),
        };
        let record = Record::Completed {
            fingerprint,
            completion,
        };
        Ok(Found { record, token })
    }

    /// The columns that are read of a record in each state.
    fn identity(&self) -> Result<(Token, Fingerprint, State), &'static str> {
        let token = self.token[..].try_into();
        let token = Token::from_bytes(token.map_err(|_| "its token is of another length")?);
        let fingerprint = self.fingerprint[..].try_into();
        let fingerprint = Fingerprint::from_bytes(fingerprint.map_err(|_| "its fingerprint is of another length")?);
        let state = State::of(self.state).ok_or("its state is of another version")?;
        Ok((token, fingerprint, state))
    }

    /// The claim that the row is, or was before it was completed.
    fn claim(&self) -> Result<Claim, &'static str> {
        let (token, fingerprint, state) = self.identity()?;
        let began_ms = self.began_ms.try_into().map_err(|_| "it began before 1970")?;
        Ok(Claim {
            token,
            attempt: self.attempt.try_into().map_err(|_| "its attempt is out of range")?,
            fingerprint,
            lease: duration(self.lease_ms)?,
            ttl: duration(self.ttl_ms)?,
            began_at: time_from_millis(began_ms),
            owner: Owner::from_bytes(self.owner.as_bytes()).ok_or("its owner is too long")?,
            has_steps: matches!(state, State::ClaimedWithSteps | State::Parked),
        })
    }
}

fn unreadable(what: &'static str) -> BackendError {
    BackendError::new(BackendErrorKind::Unreadable, what)
}

fn duration(millis: i64) -> Result<Duration, &'static str> {
    let millis = u64::try_from(millis).map_err(|_| "a duration is negative")?;
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const TOKEN: [u8; Token::LEN] = *b"0123456789abcdef";
    const LEFT: Duration = Duration::from_millis(7);

    fn columns() -> Columns {
        Columns {
            state: State::Claimed.number().into(),
            token: TOKEN.to_vec(),
            attempt: 2,
            fingerprint: Fingerprint::new(1, [0xEE; 32]).to_bytes().to_vec(),
            lease_ms: 30_000,
            ttl_ms: 86_400_000,
            began_ms: 1_764_000_000_123,
            owner: "web:1".to_owned(),
            payload: None,
        }
    }

    #[test]
    fn the_numbers_of_states_are_frozen() {
        assert_eq!(State::ALL.map(State::number), [1, 2, 3, 4, 6, 7]);
        for state in State::ALL {
            assert_eq!(State::of(state.number().into()), Some(state));
        }
    }

    #[test]
    fn a_claim_is_read() {
        let claim = Claim {
            token: Token::from_bytes(TOKEN),
            attempt: 2,
            fingerprint: Fingerprint::new(1, [0xEE; 32]),
            lease: Duration::from_secs(30),
            ttl: Duration::from_hours(24),
            began_at: time_from_millis(1_764_000_000_123),
            owner: Owner::new("web:1"),
            has_steps: false,
        };
        assert_eq!((millis(claim.lease), millis(claim.ttl)), (30_000, 86_400_000));
        for remaining in [LEFT, Duration::ZERO] {
            let (claim, token) = (claim.clone(), claim.token);
            let record = Record::Claimed { claim, remaining };
            assert!(columns().is_claimed());
            assert_eq!(columns().decode(remaining).expect("a record"), Found { record, token });
        }
    }

    #[test]
    fn a_claim_with_steps_and_a_parked_one_say_so() {
        let with_state = |state: State| Columns {
            state: state.number().into(),
            ..columns()
        };
        let with_steps = with_state(State::ClaimedWithSteps);
        assert!(with_steps.is_claimed());
        let held = with_steps.decode(LEFT).expect("a record").record;
        assert!(matches!(held, Record::Claimed { claim, remaining: LEFT } if claim.has_steps));
        let parked = with_state(State::Parked);
        assert!(!parked.is_claimed());
        let parked = parked.decode(LEFT).expect("a record").record;
        assert!(matches!(parked, Record::Parked { claim } if claim.has_steps && claim.attempt == 2));
    }

    #[test]
    fn every_completion_comes_back() {
        for completion in [
            Completion::Stored(Bytes::new()),
            Completion::Stored(Bytes::from_static(b"\0\xFFpayload")),
            Completion::NotStored,
            Completion::Unknown,
        ] {
            let mut columns = columns();
            let (state, payload) = completed(&completion);
            (columns.state, columns.payload) = (state.number().into(), payload.map(<[u8]>::to_vec));
            assert!(!columns.is_claimed());
            let fingerprint = Fingerprint::new(1, [0xEE; 32]);
            let record = Record::Completed {
                fingerprint,
                completion,
            };
            let token = Token::from_bytes(TOKEN);
            assert_eq!(columns.decode(LEFT).expect("a record"), Found { record, token });
        }
    }

    #[test]
    fn whatever_is_not_a_record_is_unreadable() {
        type Spoil = (fn(&mut Columns), &'static str);
        const STATES: &str = "its state is of another version";
        const TOGETHER: &str = "its state and its payload do not go together";
        let spoilt: [Spoil; 19] = [
            (|row| row.state = 0, STATES),
            (|row| row.state = 5, STATES),
            (|row| row.state = 8, STATES),
            (|row| (row.state, row.payload) = (4, Some(Vec::new())), TOGETHER),
            (|row| (row.state, row.payload) = (7, Some(Vec::new())), TOGETHER),
            (|row| row.state = -1, STATES),
            (|row| row.state = 0x1_0000_0001, STATES),
            (|row| row.state = 2, TOGETHER),
            (|row| (row.state, row.payload) = (3, Some(Vec::new())), TOGETHER),
            (|row| (row.state, row.payload) = (6, Some(Vec::new())), TOGETHER),
            (|row| row.payload = Some(Vec::new()), TOGETHER),
            (|row| row.token.truncate(15), "its token is of another length"),
            (|row| row.fingerprint.push(0), "its fingerprint is of another length"),
            (|row| row.attempt = -1, "its attempt is out of range"),
            (
                |row| row.attempt = i64::from(u32::MAX) + 1,
                "its attempt is out of range",
            ),
            (|row| row.lease_ms = -1, "a duration is negative"),
            (|row| row.ttl_ms = -1, "a duration is negative"),
            (|row| row.began_ms = -1, "it began before 1970"),
            (|row| row.owner = "x".repeat(33), "its owner is too long"),
        ];
        for (index, (spoil, what)) in spoilt.into_iter().enumerate() {
            let mut row = columns();
            spoil(&mut row);
            let error = row.decode(LEFT).expect_err("it is spoilt");
            assert_eq!(error.kind(), BackendErrorKind::Unreadable, "{index}");
            assert!(error.to_string().contains(what), "{index}: {error}");
        }
    }

    #[test]
    fn a_payload_is_not_shown() {
        let secret = Columns {
            payload: Some(b"hunter2".to_vec()),
            ..columns()
        };
        let shown = format!("{secret:?}");
        assert!(
            shown.contains("payload_len: Some(7)") && !shown.contains("104, 117"),
            "{shown}"
        );
    }
}
