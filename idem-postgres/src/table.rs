//! The tables of one backend: their names, their statements and the connections to them.
//!
//! Owns which names are allowed. Does not own the text of the statements, nor the pool.

use std::sync::Arc;

use idem_core::BackendError;
use sqlx::postgres::PgRow;

use crate::connections::Connections;
use crate::protocol::{Call, Rows, Wanted};
use crate::statements::Statements;

/// The longest name. The channel consists of schema, dot and table, and an identifier has at most 63 bytes.
const MAX_NAME_LEN: usize = 31;

/// The schema and the name of the table of records.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    schema: String,
    table: String,
}

impl Name {
    /// The default name.
    pub(crate) fn new() -> Self {
        Self {
            schema: "public".to_owned(),
            table: "idem_records".to_owned(),
        }
    }

    pub(crate) fn set_schema(&mut self, schema: &str) {
        assert_plain(schema);
        schema.clone_into(&mut self.schema);
    }

    pub(crate) fn set_table(&mut self, table: &str) {
        assert_plain(table);
        table.clone_into(&mut self.table);
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// The name of the table of records, which needs no escaping.
    pub(crate) fn plain(&self) -> &str {
        &self.table
    }

    pub(crate) fn quoted_schema(&self) -> String {
        format!(r#""{}""#, self.schema)
    }

    pub(crate) fn qualified(&self) -> String {
        self.qualified_with("")
    }

    pub(crate) fn qualified_with(&self, suffix: &str) -> String {
        format!("{}.{}", self.quoted_schema(), self.quoted_with(suffix))
    }

    pub(crate) fn quoted_with(&self, suffix: &str) -> String {
        format!(r#""{}{suffix}""#, self.table)
    }

    /// The channel of the messages to waiters.
    pub(crate) fn channel(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }
}

/// # Panics
///
/// When `name` contains a character that would need escaping, or is too long.
fn assert_plain(name: &str) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    assert!(
        !name.is_empty() && name.len() <= MAX_NAME_LEN && name.bytes().all(plain),
        "a schema or table name is 1 to {MAX_NAME_LEN} ASCII letters, digits and `_`"
    );
}

/// The tables in one database.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) connections: Connections,
    pub(crate) name: Name,
    pub(crate) statements: Arc<Statements>,
}

impl Table {
    pub(crate) fn new(connections: Connections, name: Name) -> Self {
        let statements = Arc::new(Statements::on(&name));
        Self {
            connections,
            name,
            statements,
        }
    }

    /// Executes one statement on a connection of the pool.
    pub(crate) async fn ask(&self, call: Call<'_>) -> Result<Option<PgRow>, BackendError> {
        self.connections.lend(call.what).await?.ask(call).await
    }

    /// Executes one statement on a connection of the pool, and returns all its rows.
    pub(crate) async fn ask_all(&self, call: Call<'_>) -> Result<Rows, BackendError> {
        self.connections.lend(call.what).await?.ask_for(call, Wanted::All).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_need_escaping_is_not_taken() {
        for name in ["", "a b", "a\"b", "a;b", "a.b", "a-b", "ä", &"a".repeat(32)] {
            let set = std::panic::catch_unwind(|| Name::new().set_table(name));
            assert!(set.is_err(), "{name}");
        }
        let mut name = Name::new();
        name.set_schema("Shop_1");
        assert_eq!(name.qualified(), r#""Shop_1"."idem_records""#);
        assert_eq!(name.channel(), "Shop_1.idem_records");
    }
}
