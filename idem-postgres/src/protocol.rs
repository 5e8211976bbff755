//! How a statement is sent: prepared, or as text that contains its values.
//!
//! Owns both ways.
//!
//! - Prepared: the statement has a name on one server connection. Behind a pooler in transaction mode, the next server connection
//!   may not know the name, or may know it as a statement of another client.
//! - As text: one message, which a pooler passes to one server connection. Values become hexadecimal digits and numbers, so no
//!   value can end a literal.
//!
//! Does not own the text of the statements: [`statements`](crate::statements).

use std::fmt::Write as _;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, SqlStr};

/// The route from this process to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// A connection is one session of the server.
    Direct,
    /// Through a pooler: consecutive statements may run in different sessions.
    Pooled,
}

/// A value of a statement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Bytes(&'a [u8]),
    NoBytes,
    Text(&'a str),
    Number(i64),
    State(i16),
}

/// A statement with its values.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    /// The purpose of the call, for errors.
    pub(crate) what: &'static str,
    /// The text of the statement, with `$1` to `$9` for the values.
    pub(crate) statement: &'a SqlStr,
    pub(crate) values: &'a [Value<'a>],
}

/// Which rows of a statement's result are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    First,
    All,
    /// The last row of several statements, which are sent as one text: one transaction.
    LastOfText,
}

/// The rows of a result. The usual result has one, for which nothing is allocated.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) first: Option<PgRow>,
    pub(crate) others: Vec<PgRow>,
}

impl Call<'_> {
    /// Executes the statement and returns the wanted rows.
    pub(crate) async fn fetch(
        &self,
        connection: &mut PgConnection,
        route: Route,
        wanted: Wanted,
    ) -> sqlx::Result<Rows> {
        let rows = match (route, wanted) {
            (Route::Direct, Wanted::First) => {
                let first = self.prepared().fetch_optional(connection).await?;
                return Ok(Rows {
                    first,
                    ..Rows::default()
                });
            }
            (Route::Direct, Wanted::All) => self.prepared().fetch_all(connection).await?,
            (_, Wanted::LastOfText) => {
                let last = self.as_text(connection).await?.pop();
                return Ok(Rows {
                    first: last,
                    ..Rows::default()
                });
            }
            (Route::Pooled, _) => self.as_text(connection).await?,
        };
        let mut rows = rows.into_iter();
        Ok(Rows {
            first: rows.next(),
            others: rows.collect(),
        })
    }

    async fn as_text(&self, connection: &mut PgConnection) -> sqlx::Result<Vec<PgRow>> {
        // In text answers, the form of bytes depends on this setting.
        let text = format!("SET LOCAL bytea_output = 'hex'; {}", self.text());
        sqlx::raw_sql(AssertSqlSafe(text)).fetch_all(connection).await
    }

    fn prepared(&self) -> Query<'_, Postgres, PgArguments> {
        let query = sqlx::query(self.statement.clone());
        self.values.iter().fold(query, |query, value| match value {
            Value::Bytes(bytes) => query.bind(*bytes),
            Value::NoBytes => query.bind(None::<&[u8]>),
            Value::Text(text) => query.bind(*text),
            Value::Number(number) => query.bind(*number),
            Value::State(state) => query.bind(*state),
        })
    }

    /// The text of the statement, with each `$n` replaced by its value.
    pub(crate) fn text(&self) -> String {
        let mut pieces = self.statement.as_str().split('$');
        let mut text = String::from(pieces.next().unwrap_or_default());
        for piece in pieces {
            let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
            let (number, rest) = piece.split_at(digits);
            let value = number
                .parse::<usize>()
                .ok()
                .and_then(|number| self.values.get(number.checked_sub(1)?));
            match value {
                Some(value) => value.write(&mut text),
                // Not the number of a value: left as it is, so that the server reports the error.
                None => text.extend(["$", number]),
            }
            text.push_str(rest);
        }
        text
    }
}

impl Value<'_> {
    /// Appends the value as a literal of its type.
    fn write(self, text: &mut String) {
        // Writing to a `String` does not fail.
        let _ = match self {
            Self::Bytes(bytes) => {
                write_hex(bytes, text);
                write!(text, "::bytea")
            }
            Self::NoBytes => write!(text, "NULL::bytea"),
            Self::Text(value) => {
                text.push_str("convert_from(");
                write_hex(value.as_bytes(), text);
                write!(text, ", 'UTF8')")
            }
            Self::Number(number) => write!(text, "({number}::bigint)"),
            Self::State(state) => write!(text, "({state}::smallint)"),
        };
    }
}

/// Appends the bytes as `'\x…'`, whatever `standard_conforming_strings` says.
fn write_hex(bytes: &[u8], text: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    text.reserve(2 * bytes.len() + 6);
    text.push_str("E'\\\\x");
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(DIGITS[usize::from(digit)]));
        }
    }
    text.push('\'');
}

#[cfg(test)]
mod tests {
    use sqlx::SqlSafeStr as _;

    use super::*;

    #[test]
    fn values_stand_in_the_place_of_their_numbers() {
        let statement = "SELECT $1, $2, $1, $3, $4, $5, $6$7$8$9$10, $99, $".into_sql_str();
        let values = [
            Value::Bytes(b"\0\xFF"),
            Value::Text("';"),
            Value::Number(-1),
            Value::State(2),
            Value::NoBytes,
            Value::Number(6),
            Value::Number(7),
            Value::Number(8),
            Value::Number(9),
            Value::Number(10),
        ];
        let call = Call {
            what: "",
            statement: &statement,
            values: &values,
        };
        assert_eq!(
            call.text(),
            "SELECT E'\\\\x00ff'::bytea, convert_from(E'\\\\x273b', 'UTF8'), E'\\\\x00ff'::bytea, (-1::bigint), \
             (2::smallint), NULL::bytea, (6::bigint)(7::bigint)(8::bigint)(9::bigint)(10::bigint), $99, $"
        );
    }
}
