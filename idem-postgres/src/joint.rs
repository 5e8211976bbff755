//! A handler's transaction, from its beginning to its end.
//!
//! Owns the connection of the handler, which belongs to the application's pool, and the knowledge how its transaction ended.
//! Two checks protect the transaction:
//!
//! - At the beginning: a connection that is in another transaction, or that cannot write, is closed and not used.
//! - At the end: the transaction must be the one that was begun. A mark tells, in a setting that is local to the transaction.
//!
//! | the server's answer | what is known | [`EndKind`] |
//! |---|---|---|
//! | success | committed | – |
//! | 25P02 | rolled back, because an earlier statement had failed | `FailedBefore` |
//! | class 40 except 40002 and 40003, class 53, 55P03, 57014; before COMMIT also a lost connection | rolled back; may succeed next time | `MayPass` |
//! | another refusal before COMMIT; class 22, 23, 25, 42, 44, P0, 0A in answer to COMMIT | rolled back; will be refused again | `Refused` |
//! | none, or any other, to COMMIT | nothing | `Unknown` |
//! | the mark of the transaction is missing | the handler ended its own transaction | `EndedByHandler` |
//!
//! Does not own the claim's record: the statement that completes it is in [`statements`](crate::statements).

use std::fmt;
use std::time::Duration;

use idem_core::{Claim, Completion, EndError, EndKind, Fenced, RecordKey};
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgTransactionManager;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Row as _, SqlSafeStr as _, SqlStr};
// sqlx's own count of transactions, by which a handler's `connection.begin()` is a savepoint.
use sqlx_core::transaction::TransactionManager as _;
use tokio::time::timeout;

use crate::error::{code, ends_connection};
use crate::protocol::{Call, Value};
use crate::record;
use crate::table::Table;

/// For how long the server waits for a commit once the record is written, in milliseconds. The commit follows at once.
const COMMIT_WITHIN: u32 = 5_000;

/// The limit of a rollback. It has to wait for a statement that the handler has given up and that is still running. After the
/// limit, the connection is closed, which rolls back as well.
const ROLLBACK_LIMIT: Duration = Duration::from_secs(1);

/// The transaction of a handler. If it is dropped, it is rolled back.
///
/// [`PostgresBackend::begin`](crate::PostgresBackend::begin) begins it.
/// [`PostgresBackend::complete_in`](crate::PostgresBackend::complete_in), [`commit`](Self::commit) or
/// [`roll_back`](Self::roll_back) end it.
pub struct JointTransaction {
    connection: PoolConnection<Postgres>,
    /// Identifies the transaction among all transactions of its connection.
    mark: String,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is unknown whether the server has begun the transaction.
    Beginning,
    Begun,
    /// It is unknown how the transaction ended.
    Ending,
    Ended,
}

/// Runs deferred constraints and triggers before the commit, where a refusal certainly means that nothing was committed.
const DEFERRED: &str = "SET CONSTRAINTS ALL IMMEDIATE";

/// Reads the mark of the transaction.
const MARK: &str = "SELECT current_setting('idem.transaction', true)";

/// A claim that is completed together with its handler's effects.
pub(crate) struct Completing<'a> {
    pub(crate) table: &'a Table,
    pub(crate) key: &'a RecordKey,
    pub(crate) claim: &'a Claim,
    pub(crate) completion: &'a Completion,
    pub(crate) ttl: Duration,
}

impl AsRef<PgConnection> for JointTransaction {
    fn as_ref(&self) -> &PgConnection {
        &self.connection
    }
}

impl JointTransaction {
    /// Begins a transaction on a connection of `pool`. If a connection is of no use, closes it and tries another one.
    pub(crate) async fn begin(pool: &PgPool) -> sqlx::Result<Self> {
        // One try per existing connection and one on a new one: after that, further tries would not help.
        let mut tries = pool.size().saturating_add(1);
        loop {
            let mut begun = Self {
                connection: pool.acquire().await?,
                mark: format!("{:032x}", u128::from_be_bytes(idem_core::Token::random().to_bytes())),
                state: State::Beginning,
            };
            tries -= 1;
            match begun.try_begin().await {
                Err(error) if tries > 0 && (ends_connection(&error) || is_on_a_standby(&error)) => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(begun),
            }
        }
    }

    /// Begins the transaction with modes that the server refuses if the connection is in a transaction that has run a query
    /// (25001), or if the server is a standby. Runs no query itself, so that the handler may still choose an isolation level.
    async fn try_begin(&mut self) -> sqlx::Result<()> {
        let begin = format!(
            "BEGIN READ WRITE NOT DEFERRABLE; SET LOCAL idem.transaction = '{}'",
            self.mark
        );
        let begin = AssertSqlSafe(begin).into_sql_str();
        PgTransactionManager::begin(&mut self.connection, Some(begin)).await?;
        self.state = State::Begun;
        Ok(())
    }

    /// The connection, for the handler's statements.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Commits without a record. `asked` is called just before the commit is sent; if the future is dropped before that,
    /// nothing is committed.
    ///
    /// # Errors
    ///
    /// When the transaction was not committed, or its end is unknown: [`EndError::kind`] tells which.
    pub async fn commit(mut self, asked: impl FnOnce()) -> Result<(), EndError> {
        self.state = State::Ending;
        self.ask(format!("{DEFERRED}; {MARK}")).await?;
        self.send_commit(asked).await
    }

    /// Rolls back within a second. If that takes longer, the connection is closed, which rolls back as well.
    ///
    /// # Errors
    ///
    /// [`EndKind::EndedByHandler`] if the handler has ended the transaction: its effects may be committed.
    pub async fn roll_back(mut self) -> Result<(), EndError> {
        self.state = State::Ending;
        let rolling_back = async {
            let found = self.ask(MARK.to_owned()).await;
            self.undo().await;
            found
        };
        match timeout(ROLLBACK_LIMIT, rolling_back).await {
            Ok(Err(error)) if error.kind() == EndKind::EndedByHandler => Err(error),
            _ => Ok(()),
        }
    }

    /// Rolls back, so that the connection can be lent again.
    async fn undo(&mut self) {
        if self.depth() == 1 && PgTransactionManager::rollback(&mut self.connection).await.is_ok() {
            self.state = State::Ended;
        }
    }

    /// The depth that sqlx counts: this transaction, and the savepoints in it.
    fn depth(&self) -> usize {
        PgTransactionManager::get_transaction_depth(&self.connection)
    }

    /// Sends statements, of which [`MARK`] is the last or the last but one, and returns the number of rows. Fails if the mark is
    /// not that of this transaction. After a refusal, rolls the transaction back.
    async fn ask(&mut self, text: String) -> Result<usize, EndError> {
        if self.depth() != 1 {
            return Err(EndError::new(EndKind::EndedByHandler));
        }
        match sqlx::raw_sql(AssertSqlSafe(text))
            .fetch_all(&mut *self.connection)
            .await
        {
            Ok(rows) => {
                let found: Option<String> = rows.first().and_then(|row| row.try_get(0).ok());
                if found.as_deref() == Some(&self.mark) {
                    return Ok(rows.len());
                }
                Err(EndError::new(EndKind::EndedByHandler))
            }
            Err(error) => {
                if !ends_connection(&error) || code(&error).as_deref() == Some("25P02") {
                    let _ = timeout(ROLLBACK_LIMIT, self.undo()).await;
                }
                Err(before_commit(error))
            }
        }
    }

    /// Completes the claim and commits.
    pub(crate) async fn complete(self, it: Completing<'_>, asked: impl FnOnce()) -> Result<Fenced, EndError> {
        let end = record::End::new(it.key, it.claim, it.table.name.channel());
        let statement = it.table.statements.complete_in_of(it.claim);
        self.write_and_commit(statement, end.complete(it.completion, it.ttl), asked)
            .await
    }

    /// Records a step of the claim and commits.
    pub(crate) async fn record_step(
        self,
        table: &Table,
        ([id, token], known_state): ([Value<'_>; 2], i16),
        (name, step): (&str, &[u8]),
        asked: impl FnOnce(),
    ) -> Result<Fenced, EndError> {
        let known_state = Value::State(known_state);
        let values = vec![id, token, Value::Text(name), Value::Bytes(step), known_state];
        self.write_and_commit(&table.statements.steps.record_in, values, asked)
            .await
    }

    /// Executes a statement on the record, whose last value is the mark, and commits. If the statement returns no row, the claim was
    /// superseded, and the transaction is rolled back.
    async fn write_and_commit(
        mut self,
        statement: &SqlStr,
        mut values: Vec<Value<'_>>,
        asked: impl FnOnce(),
    ) -> Result<Fenced, EndError> {
        self.state = State::Ending;
        let mark = self.mark.clone();
        values.push(Value::Text(&mark));
        let call = Call {
            what: "writing a record in a transaction",
            statement,
            values: &values,
        };
        // From the record's statement to the commit, the record is locked. If the commit never comes, because the process stalls or
        // its line is silent, the server ends the session: it must not wait until TCP notices.
        // Deferred triggers run first, with the handler's role. After that, the handler's role and time limits are reset for the
        // record's statement. Only index scans are allowed, because a serializable transaction would conflict with the other
        // records that a different plan reads.
        let text = format!(
            "{DEFERRED}; SET LOCAL SESSION AUTHORIZATION DEFAULT; SET LOCAL statement_timeout = 0; \
             SET LOCAL lock_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = {COMMIT_WITHIN}; \
             SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; {MARK}; {}",
            call.text()
        );
        if self.ask(text).await? < 2 {
            let _ = timeout(ROLLBACK_LIMIT, self.undo()).await;
            return Ok(Fenced::Superseded);
        }
        self.send_commit(asked).await?;
        Ok(Fenced::Applied)
    }

    async fn send_commit(&mut self, asked: impl FnOnce()) -> Result<(), EndError> {
        asked();
        PgTransactionManager::commit(&mut self.connection)
            .await
            .map_err(at_commit)?;
        self.state = State::Ended;
        Ok(())
    }
}

impl Drop for JointTransaction {
    fn drop(&mut self) {
        match self.state {
            State::Ended => {}
            // The ROLLBACK is sent when the connection is used next, as for sqlx's own transactions.
            State::Begun if PgTransactionManager::get_transaction_depth(&self.connection) == 1 => {
                PgTransactionManager::start_rollback(&mut self.connection);
            }
            State::Beginning | State::Begun | State::Ending => self.connection.close_on_drop(),
        }
    }
}

impl fmt::Debug for JointTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JointTransaction").finish_non_exhaustive()
    }
}

/// Whether a transaction could not begin because the server is a standby (0A000).
fn is_on_a_standby(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("0A000")
}

/// The end of a transaction after an error before COMMIT was sent: it was certainly rolled back.
fn before_commit(error: sqlx::Error) -> EndError {
    let kind = match code(&error).as_deref() {
        Some("25P02") => EndKind::FailedBefore,
        Some(code) if may_pass(code) || is_about_connection(code) => EndKind::MayPass,
        Some(_) => EndKind::Refused,
        None => EndKind::MayPass,
    };
    EndError::new(kind).with_source(error)
}

/// The end of a transaction after an error in answer to COMMIT. Only codes that certainly mean a rollback count as one. Other
/// errors say nothing: a server that shuts down may have committed before, and a proxy does not know.
fn at_commit(error: sqlx::Error) -> EndError {
    const REFUSALS: [&str; 7] = ["22", "23", "25", "42", "44", "P0", "0A"];
    let kind = match code(&error).as_deref() {
        Some(code) if may_pass(code) => EndKind::MayPass,
        Some(code) if is_about_connection(code) => EndKind::Unknown,
        Some(code) if REFUSALS.iter().any(|class| code.starts_with(class)) => EndKind::Refused,
        _ => EndKind::Unknown,
    };
    EndError::new(kind).with_source(error)
}

/// Whether the error ends the connection: it was lost, the server shut down, or the transaction was idle or open too long.
fn is_about_connection(code: &str) -> bool {
    ["08", "57", "58"].iter().any(|class| code.starts_with(class)) || ["25P03", "25P04"].contains(&code)
}

/// Whether the cause of the refusal may pass: another transaction, a lack of memory, disk or connections, or a cancelled
/// statement.
fn may_pass(code: &str) -> bool {
    let is_rolled_back = code.starts_with("40") && code != "40003" && code != "40002";
    is_rolled_back || code.starts_with("53") || code == "55P03" || code == "57014"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_was_rolled_back_only_what_may_pass_is_worth_a_retry() {
        for code in ["40001", "40P01", "40000", "53200", "55P03", "57014"] {
            assert!(may_pass(code), "{code}");
        }
        for code in [
            "40002", "40003", "23505", "22003", "42501", "42P01", "P0001", "25006", "57P01", "08006",
        ] {
            assert!(!may_pass(code), "{code}");
        }
    }

    #[test]
    fn a_connection_that_is_lost_leaves_nothing_done_before_the_commit_and_nothing_known_after_it() {
        let lost = || sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert_eq!(before_commit(lost()).kind(), EndKind::MayPass);
        assert_eq!(at_commit(lost()).kind(), EndKind::Unknown);
        for code in ["25P03", "25P04", "58000", "08006", "57P01"] {
            assert!(is_about_connection(code) && !may_pass(code), "{code}");
        }
    }
}
