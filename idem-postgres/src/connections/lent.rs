//! A connection that is lent for one call.
//!
//! Owns the repetition of a statement, and the decision whether the connection is kept or closed when the call has ended or was
//! given up. Does not own which connection is lent: that is the pool's choice. Does not own how it is opened:
//! [`opening`](super::opening).

use std::time::Duration;

use idem_core::BackendError;
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, SqlSafeStr as _};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::opening::Opened;
use super::{ANSWER_LIMIT, Connections};
use crate::error::{backend_error, ends_connection, is_collision, repeated_error};
use crate::protocol::{Call, Route, Rows, Wanted};

/// The most tries of a statement that collides with other transactions.
const TRIES: usize = 8;

/// How long a statement that was given up may take to end by itself, before it is cancelled.
const GRACE: Duration = Duration::from_millis(100);

/// A connection that is lent for one call.
pub(crate) struct Lent {
    connection: Option<PgConnection>,
    state: State,
    opened: Opened,
    /// Whether the connection was idle before, so that it may have broken unnoticed.
    was_idle: bool,
    pool: Connections,
    /// Dropped after the connection has been returned, so that the next call finds it.
    turn: Option<OwnedSemaphorePermit>,
}

/// The state of the connection, by its last answer.
enum State {
    /// The last statement was answered.
    Sound,
    /// A statement was sent and has not been answered.
    Asked,
    /// The connection is of no use any more.
    Useless,
}

impl Lent {
    pub(super) fn new(
        pool: &Connections,
        connection: PgConnection,
        opened: Opened,
        was_idle: bool,
        turn: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            connection: Some(connection),
            state: State::Sound,
            opened,
            was_idle,
            pool: pool.clone(),
            turn: Some(turn),
        }
    }

    /// The route of this connection.
    pub(super) fn route(&self) -> Route {
        self.opened.route
    }

    /// Executes a statement and returns its first row. When this resolves, the statement is committed, and as durable as the
    /// server is configured to make it.
    ///
    /// Every statement may be repeated. It is sent again if it collided with another transaction. If the connection was idle and
    /// turns out to be of no use, the statement is sent once more over a new connection.
    pub(crate) async fn ask(&mut self, call: Call<'_>) -> Result<Option<PgRow>, BackendError> {
        Ok(self.ask_for(call, Wanted::First).await?.first)
    }

    /// Executes a statement, as [`ask`](Self::ask) does, and returns the wanted rows.
    pub(crate) async fn ask_for(&mut self, call: Call<'_>, wanted: Wanted) -> Result<Rows, BackendError> {
        let mut tries = 1;
        let mut is_repeated = false;
        loop {
            match self.try_ask(&call, wanted).await {
                Err(error) if is_collision(&error) && tries < TRIES => tries += 1,
                Err(error) if self.was_idle && ends_connection(&error) => {
                    self.pool.close_idle();
                    is_repeated = true;
                    self.reopen(call.what).await?;
                }
                Err(error) if is_repeated => return Err(repeated_error(call.what, error)),
                answered => return answered.map_err(|error| backend_error(call.what, error)),
            }
        }
    }

    /// Makes sure that the connection answers. After that, a statement is not sent again if the connection breaks: it may have taken
    /// effect, and the answer of the repetition would deny it.
    pub(crate) async fn wake(&mut self, what: &'static str) -> Result<(), BackendError> {
        let sign = Call {
            what,
            statement: &"SELECT true".into_sql_str(),
            values: &[],
        };
        self.ask_for(sign, Wanted::LastOfText).await?;
        self.was_idle = false;
        Ok(())
    }

    async fn try_ask(&mut self, call: &Call<'_>, wanted: Wanted) -> sqlx::Result<Rows> {
        let Some(connection) = &mut self.connection else {
            return Err(sqlx::Error::WorkerCrashed);
        };
        self.state = State::Asked;
        let answered = call.fetch(connection, self.opened.route, wanted).await;
        self.state = match &answered {
            Err(error) if ends_connection(error) => State::Useless,
            _ => State::Sound,
        };
        answered
    }

    /// Replaces the connection by a new one.
    async fn reopen(&mut self, what: &'static str) -> Result<(), BackendError> {
        self.connection = None;
        let turn = self.turn.take();
        let turn = turn.ok_or_else(|| backend_error(what, sqlx::Error::WorkerCrashed))?;
        let may_open = super::turn(&self.pool.0.openings).await;
        let may_open = may_open.map_err(|error| repeated_error(what, error))?;
        let mut opening = self.pool.opening(turn, may_open);
        let opened = match &mut opening.0 {
            Some(opening) => opening.await,
            None => Err(sqlx::Error::WorkerCrashed),
        };
        opening.0 = None;
        *self = opened.map_err(|error| repeated_error(what, error))?;
        Ok(())
    }

    /// Marks the connection to be closed, and closes the idle ones, because their server is of no use.
    pub(crate) fn give_up(&mut self) {
        self.state = State::Useless;
        self.pool.close_idle();
    }

    /// The connection itself, for more than one statement. It is closed afterwards, unless [`put_back`](Self::put_back) says that
    /// its session is unchanged.
    pub(crate) fn take_out(&mut self) -> sqlx::Result<&mut PgConnection> {
        self.state = State::Useless;
        self.connection.as_mut().ok_or(sqlx::Error::WorkerCrashed)
    }

    /// Keeps the connection after [`take_out`](Self::take_out).
    pub(crate) fn put_back(&mut self) {
        self.state = State::Sound;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Outside a runtime, the connection can only be closed.
        let (Some(connection), Ok(runtime)) = (self.connection.take(), Handle::try_current()) else {
            return;
        };
        match self.state {
            State::Sound => self.pool.keep(connection, self.opened.clone()),
            State::Useless => {}
            State::Asked => {
                let given_up = GivenUp {
                    connection,
                    opened: self.opened.clone(),
                    pool: self.pool.clone(),
                    _turn: self.turn.take(),
                };
                runtime.spawn(given_up.end());
            }
        }
    }
}

/// A connection whose statement was given up. It keeps its place in the pool until the statement has ended.
struct GivenUp {
    connection: PgConnection,
    opened: Opened,
    pool: Connections,
    _turn: Option<OwnedSemaphorePermit>,
}

impl GivenUp {
    /// Ends the statement. Keeps the connection if it answers afterwards.
    async fn end(mut self) {
        let mut is_sound = timeout(GRACE, answers(&mut self.connection)).await == Ok(true);
        if !is_sound {
            match timeout(ANSWER_LIMIT, self.pool.cancel(&self.opened)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a statement that was given up could not be cancelled"
                ),
                Err(_elapsed) => tracing::debug!("cancelling a statement that was given up is not answered"),
            }
            is_sound = timeout(ANSWER_LIMIT, answers(&mut self.connection)).await == Ok(true);
        }
        if is_sound {
            self.pool.keep(self.connection, self.opened);
        } else {
            self.pool.close_idle();
        }
    }
}

/// Whether a connection answers. The first ping may get the error of the cancelled statement; then a second one decides.
async fn answers(connection: &mut PgConnection) -> bool {
    match connection.ping().await {
        Err(error) if error.as_database_error().is_some() && !ends_connection(&error) => {
            connection.ping().await.is_ok()
        }
        answered => answered.is_ok(),
    }
}
