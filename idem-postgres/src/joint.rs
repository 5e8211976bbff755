//! A handler's transaction, from its beginning to its end.
//!
//! Owns the one connection that a handler works on, which is of the application's own pool, and what is known when its
//! transaction ends. It believes nothing of a connection that others have used before: a transaction that is open already,
//! or one that cannot write, is not joined, and such a connection is closed. It believes nothing of what the handler did
//! either: the end looks whether the transaction is still the one that was begun.
//!
//! | the server says | known | [`EndKind`] |
//! |---|---|---|
//! | nothing failed | committed | – |
//! | 25P02 | an earlier statement had failed, so nothing was done | `FailedBefore` |
//! | class 40 but 40003, class 53, 55P03, 57014; before COMMIT also that the connection is lost | undone; may pass | `MayPass` |
//! | another refusal before COMMIT; class 22, 23, 25, 42, 44, P0, 0A in answer to it | undone; will be refused again | `Refused` |
//! | nothing in answer to COMMIT, or anything else | nothing | `Unknown` |
//! | that the transaction is another one | that the handler ended its own | `EndedByHandler` |

use std::fmt;
use std::time::Duration;

use idem_core::{Claim, Completion, Fenced, RecordKey};
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgTransactionManager;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Row as _, SqlSafeStr as _};
// sqlx's own count of transactions, by which a handler's `connection.begin()` is a savepoint.
use sqlx_core::transaction::TransactionManager as _;
use tokio::time::timeout;

use crate::error::{code, ends_connection};
use crate::protocol::{Call, Value};
use crate::record;
use crate::table::Table;

/// How long a rollback may take. A statement that the handler has given up may still run, and is waited for; a connection on
/// which it does not end is closed, which rolls back as well.
const ROLLBACK_LIMIT: Duration = Duration::from_secs(1);

/// A transaction that a handler works in. Dropped, it is rolled back.
///
/// Made by [`PostgresBackend::begin`](crate::PostgresBackend::begin), and ended by
/// [`PostgresBackend::complete_in`](crate::PostgresBackend::complete_in), [`commit`](Self::commit) or
/// [`roll_back`](Self::roll_back).
pub struct JointTransaction {
    connection: PoolConnection<Postgres>,
    /// What tells it from any other transaction of its connection.
    mark: String,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Whether the server has begun it is not known.
    Beginning,
    Begun,
    /// What has become of it is not known.
    Ending,
    Ended,
}

/// Why a transaction did not end as its handler wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndKind {
    /// An earlier statement had failed, and its error was not acted on. Nothing was done.
    FailedBefore,
    /// Nothing was done, and the same may succeed the next time: it met another transaction, or the server was short of
    /// something, or the connection was lost before the commit.
    MayPass,
    /// Nothing was done, and the same will be refused again, as by a constraint that is checked at the commit.
    Refused,
    /// Nobody knows whether it was committed: the connection was lost under the commit.
    Unknown,
    /// The handler ended its transaction itself, by SQL text. What it had done until then may be committed.
    EndedByHandler,
}

/// How a transaction ended that was not committed, or that nobody knows of.
#[derive(Debug)]
pub struct EndError {
    kind: EndKind,
    source: Option<sqlx::Error>,
}

impl EndError {
    /// What is known.
    #[must_use]
    pub fn kind(&self) -> EndKind {
        self.kind
    }
}

impl fmt::Display for EndError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            EndKind::FailedBefore => "the transaction was rolled back: one of its statements had failed before",
            EndKind::MayPass => "the transaction was rolled back, and may succeed the next time",
            EndKind::Refused => "the transaction was rolled back, and will be refused again",
            EndKind::Unknown => "whether the transaction was committed is not known",
            EndKind::EndedByHandler => "the transaction was ended by a statement of the handler",
        })
    }
}

impl std::error::Error for EndError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// Lets constraints and triggers that were deferred act now, so that what they refuse is known to be undone.
const DEFERRED: &str = "SET CONSTRAINTS ALL IMMEDIATE";

/// Tells the transaction from any other one of its connection.
const MARK: &str = "SELECT current_setting('idem.transaction', true)";

const ENDED_BY_HANDLER: EndError = EndError {
    kind: EndKind::EndedByHandler,
    source: None,
};

/// A claim that is completed together with its handler's effects.
pub(crate) struct Completing<'a> {
    pub(crate) table: &'a Table,
    pub(crate) key: &'a RecordKey,
    pub(crate) claim: &'a Claim,
    pub(crate) completion: &'a Completion,
}

impl JointTransaction {
    /// Begins one on a connection of `pool`: on another one where the first turns out to be of no use, which is closed.
    pub(crate) async fn begin(pool: &PgPool) -> sqlx::Result<Self> {
        // Only a connection that was there before can be of no use and the next one be better.
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

    /// In a transaction that was open before and has seen a query, the modes are refused (25001), and so are they by a
    /// standby. No query is sent: the handler may still choose an isolation level.
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

    /// Commits without a record. `asked` is called as the commit is about to be sent: before that, dropping the future
    /// leaves nothing done.
    ///
    /// # Errors
    ///
    /// As its [`kind`](EndError::kind) says.
    pub async fn commit(mut self, asked: impl FnOnce()) -> Result<(), EndError> {
        self.state = State::Ending;
        self.ask(format!("{DEFERRED}; {MARK}")).await?;
        self.send_commit(asked).await
    }

    /// Rolls back, within a second; a connection on which that does not end is closed, and that rolls back as well.
    ///
    /// # Errors
    ///
    /// [`EndKind::EndedByHandler`] where there is nothing to roll back any more: what the handler has done may be there.
    pub async fn roll_back(mut self) -> Result<(), EndError> {
        self.state = State::Ending;
        let rolling_back = async {
            let found = self.ask(MARK.to_owned()).await;
            self.undo().await;
            found
        };
        match timeout(ROLLBACK_LIMIT, rolling_back).await {
            Ok(Err(error)) if error.kind == EndKind::EndedByHandler => Err(error),
            _ => Ok(()),
        }
    }

    /// Rolls back, so that the connection can be lent again.
    async fn undo(&mut self) {
        if self.depth() == 1 && PgTransactionManager::rollback(&mut self.connection).await.is_ok() {
            self.state = State::Ended;
        }
    }

    /// How many transactions sqlx counts: ours, and the savepoints in it.
    fn depth(&self) -> usize {
        PgTransactionManager::get_transaction_depth(&self.connection)
    }

    /// Sends statements that end in [`MARK`] or have it before their last one, and returns how many rows came, if the
    /// transaction is still the one that was begun. After a refusal, it is rolled back.
    async fn ask(&mut self, text: String) -> Result<usize, EndError> {
        if self.depth() != 1 {
            return Err(ENDED_BY_HANDLER);
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
                Err(ENDED_BY_HANDLER)
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
    pub(crate) async fn complete(mut self, it: Completing<'_>, asked: impl FnOnce()) -> Result<Fenced, EndError> {
        self.state = State::Ending;
        let end = record::End::new(it.key, it.claim, it.table.name.channel());
        let mut values = end.complete(it.completion);
        values.push(Value::Text(&self.mark));
        let call = Call {
            what: "completing in a transaction",
            statement: &it.table.statements.complete_in,
            values: &values,
        };
        // What was deferred comes first, as the handler's role. What the handler has set for its own statements does not reach
        // the record's: neither a role, nor a time limit. Only an index leads to one record without a look at others, which
        // a serializable transaction would conflict with.
        let text = format!(
            "{DEFERRED}; SET LOCAL SESSION AUTHORIZATION DEFAULT; SET LOCAL statement_timeout = 0; \
             SET LOCAL lock_timeout = 0; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; {MARK}; {}",
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
            // Sent by whoever gets the connection next, as by sqlx's own transactions.
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

/// Whether a transaction could not begin because the server is a standby, which is said by 0A000.
fn is_on_a_standby(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("0A000")
}

/// What an error means that came before COMMIT was sent: nothing was done, whoever closed the connection.
fn before_commit(error: sqlx::Error) -> EndError {
    let kind = match code(&error).as_deref() {
        Some("25P02") => EndKind::FailedBefore,
        Some(code) if may_pass(code) || is_about_connection(code) => EndKind::MayPass,
        Some(_) => EndKind::Refused,
        None => EndKind::MayPass,
    };
    let source = Some(error);
    EndError { kind, source }
}

/// What an error means that came in answer to COMMIT. Only what is known to be said of a transaction that was rolled back
/// counts as that: a server that shuts down may have committed before, and a proxy does not know.
fn at_commit(error: sqlx::Error) -> EndError {
    const REFUSALS: [&str; 7] = ["22", "23", "25", "42", "44", "P0", "0A"];
    let kind = match code(&error).as_deref() {
        Some(code) if may_pass(code) => EndKind::MayPass,
        Some(code) if is_about_connection(code) => EndKind::Unknown,
        Some(code) if REFUSALS.iter().any(|class| code.starts_with(class)) => EndKind::Refused,
        _ => EndKind::Unknown,
    };
    let source = Some(error);
    EndError { kind, source }
}

/// Whether it is the connection that ends, and not the transaction alone: lost, shut down, or idle or open for too long.
fn is_about_connection(code: &str) -> bool {
    ["08", "57", "58"].iter().any(|class| code.starts_with(class)) || ["25P03", "25P04"].contains(&code)
}

/// Whether the server refused for something that passes: another transaction that was in the way, a want of memory, disk or
/// connections, or somebody who cancelled the statement.
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
