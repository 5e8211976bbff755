//! Completing a claim in a transaction that the backend does not own, by whatever client the application has.
//!
//! Owns the statement as one text, and the question whether that transaction was committed. Does not own the transaction: the
//! application begins and ends it.
//!
//! The client must be linked to the same copy of SQLite, which Cargo ensures for crates that use `libsqlite3-sys`. Two copies in one
//! process do not see each other's locks on a file.

use std::fmt::Write as _;
use std::time::Duration;

use idem_core::{BackendError, Claim, Completion, RecordKey};
use sqlx::Row as _;

use crate::SqliteBackend;
use crate::clock::Clock;
use crate::error::backend_error;
use crate::record::{Parameters, completed};

impl SqliteBackend {
    /// The statement that completes `claim` for `ttl`, as text that contains its values.
    ///
    /// It changes one row, or none if the claim was superseded. [`is_completed`](Self::is_completed) tells whether the transaction
    /// was committed.
    #[must_use]
    pub fn completion_sql(
        &self,
        (key, claim): (&RecordKey, &Claim),
        (completion, ttl): (&Completion, Duration),
    ) -> String {
        let (state, payload) = completed(completion);
        let statement = &self.changes.store().statements.complete_by_hand;
        filled_in(statement, |number, text| match number {
            1 => write_text(key.as_str(), text),
            2 => write_bytes(&claim.token.to_bytes(), text),
            3 => write_number(state, text),
            4 => match payload {
                Some(payload) => write_bytes(payload, text),
                None => text.push_str("NULL"),
            },
            10 => write_number(Clock::now().expires_ms(ttl), text),
            // Not the number of a value: left as it is, so that SQLite reports the error.
            _ => write_placeholder(number, text),
        })
    }

    /// Whether `claim` has been completed, also if the record has expired since. `None` if the record is gone, or is another claim's.
    ///
    /// If it has not been completed, a transaction that would complete it may still be open:
    /// [`release`](idem_core::Backend::release) waits for the end of that transaction.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or read.
    pub async fn is_completed(&self, key: &RecordKey, claim: &Claim) -> Result<Option<bool>, BackendError> {
        const LOOKING: &str = "looking for a completion";
        let store = self.changes.store();
        let parameters = Parameters::own(key, claim.token);
        let parameters = parameters.map_err(|error| backend_error(LOOKING, sqlx::Error::Encode(error)))?;
        let statement = &store.statements.has_ended;
        let row = store.readers.read(statement, parameters.into_arguments()).await?;
        let is_completed = row.map(|row| row.try_get(0)).transpose();
        let is_completed = is_completed.map_err(|error| backend_error(LOOKING, error).not_written())?;
        if is_completed == Some(true) {
            // Another client has ended the claim, so the writer has woken nobody.
            store.waiters.wake(key);
        }
        Ok(is_completed)
    }
}

/// The statement, with `write` called in the place of each `?n`.
fn filled_in(statement: &str, write: impl Fn(usize, &mut String)) -> String {
    let mut pieces = statement.split('?');
    let mut text = String::from(pieces.next().unwrap_or_default());
    for piece in pieces {
        let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = piece.split_at(digits);
        write(number.parse().unwrap_or_default(), &mut text);
        text.push_str(rest);
    }
    text
}

// Values become hexadecimal digits and numbers, so that none of them can end a literal. Writing to a `String` does not fail.

fn write_bytes(bytes: &[u8], text: &mut String) {
    text.reserve(2 * bytes.len() + 3);
    text.push_str("X'");
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\'');
}

fn write_text(value: &str, text: &mut String) {
    text.push_str("CAST(");
    write_bytes(value.as_bytes(), text);
    text.push_str(" AS TEXT)");
}

fn write_number(number: i64, text: &mut String) {
    let _ = write!(text, "({number})");
}

fn write_placeholder(number: usize, text: &mut String) {
    let _ = write!(text, "?{number}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_the_place_of_their_numbers() {
        let filled = filled_in("SET a = ?1, b = ?12 WHERE c = ?2", |number, text| match number {
            1 => write_text("';", text),
            12 => write_bytes(b"\0\xFF", text),
            _ => write_number(-1, text),
        });
        assert_eq!(filled, "SET a = CAST(X'273b' AS TEXT), b = X'00ff' WHERE c = (-1)");
    }
}
