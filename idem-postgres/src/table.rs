//! The table of records: its name, and one statement at a time on it.
//!
//! Owns a connection of the pool for the length of a statement, and gives it back or up. A statement that met another one
//! and had to give way is repeated.

use std::sync::Arc;
use std::time::Duration;

use idem_core::BackendError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Connection as _, PgPool, Postgres};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::error::{backend_error, is_collision};
use crate::statements::Statements;

/// How often a statement that had to give way is tried.
const TRIES: usize = 8;

/// How long a connection whose statement was given up has to answer before it is given up as well.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The longest a name may be: as a channel, both and a dot have to fit into the 63 bytes of an identifier.
const MAX_NAME_LEN: usize = 31;

/// Where the table is.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    schema: String,
    table: String,
}

impl Name {
    /// The default.
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

    /// The channel on which waiters are told.
    pub(crate) fn channel(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }
}

/// # Panics
///
/// When `name` has anything in it that would have to be escaped, or is too long.
fn assert_plain(name: &str) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    assert!(
        !name.is_empty() && name.len() <= MAX_NAME_LEN && name.bytes().all(plain),
        "a schema or table name is 1 to {MAX_NAME_LEN} ASCII letters, digits and `_`"
    );
}

/// The table of records in one database.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) pool: PgPool,
    pub(crate) name: Name,
    pub(crate) statements: Arc<Statements>,
}

impl Table {
    pub(crate) fn new(pool: PgPool, name: Name) -> Self {
        let statements = Arc::new(Statements::on(&name.qualified()));
        Self { pool, name, statements }
    }

    /// Executes a statement and returns its first row. It has taken effect, and as lasting as the server is set up to
    /// make it, once this resolves.
    pub(crate) async fn ask<'q>(
        &self,
        what: &'static str,
        query: impl Fn() -> Query<'q, Postgres, PgArguments>,
    ) -> Result<Option<PgRow>, BackendError> {
        let mut tries = 1;
        loop {
            match self.try_ask(query()).await {
                Err(error) if is_collision(&error) && tries < TRIES => tries += 1,
                answered => return answered.map_err(|error| backend_error(what, error)),
            }
        }
    }

    async fn try_ask(&self, query: Query<'_, Postgres, PgArguments>) -> sqlx::Result<Option<PgRow>> {
        let mut lent = Lent(Some(self.pool.acquire().await?));
        let Some(connection) = &mut lent.0 else {
            return Err(sqlx::Error::WorkerCrashed);
        };
        let answered = query.fetch_optional(&mut **connection).await;
        // It has answered, so the pool can have it back.
        drop(lent.0.take());
        answered
    }
}

/// A connection whose statement may be given up half-way. The pool would wait for its answer for as long as the network
/// does, and lend nothing in its place.
struct Lent(Option<PoolConnection<Postgres>>);

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut connection) = self.0.take() else { return };
        let Ok(runtime) = Handle::try_current() else {
            drop(connection.detach());
            return;
        };
        runtime.spawn(async move {
            if !matches!(timeout(ANSWER_LIMIT, connection.ping()).await, Ok(Ok(()))) {
                drop(connection.detach());
            }
        });
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
