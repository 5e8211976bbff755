//! A connection that is lent for one call.
//!
//! Owns what a statement on it is repeated for, and what becomes of the connection when the call is over or is given up. Does not
//! own which connection is lent, nor how one is opened: that is the pool's.

use std::time::Duration;

use idem_core::BackendError;
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::opening::Opened;
use super::{ANSWER_LIMIT, Connections};
use crate::error::{backend_error, ends_connection, is_collision, repeated_error};
use crate::protocol::{Call, Route};

/// How often a statement that had to give way is tried.
const TRIES: usize = 8;

/// How long a connection whose statement was given up may take by itself, before the statement is cancelled.
const GRACE: Duration = Duration::from_millis(100);

/// A connection, for one call.
pub(crate) struct Lent {
    connection: Option<PgConnection>,
    state: State,
    opened: Opened,
    /// Whether it lay idle before, so that it may have broken unnoticed.
    was_idle: bool,
    pool: Connections,
    /// After the connection, so that whoever is next finds it.
    turn: Option<OwnedSemaphorePermit>,
}

/// What the connection said last.
enum State {
    /// It has answered.
    Sound,
    /// A statement has been sent, and not been answered.
    Asked,
    /// It is of no use any more.
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

    /// What stands between this process and the server, by this connection.
    pub(super) fn route(&self) -> Route {
        self.opened.route
    }

    /// Executes a statement and returns its first row. It has taken effect, and as lasting as the server is set up to
    /// make it, once this resolves.
    ///
    /// Each statement is one that may be repeated: it is sent again where it had to give way, and once over a fresh
    /// connection where one that lay idle turns out to be of no use.
    pub(crate) async fn ask(&mut self, call: Call<'_>) -> Result<Option<PgRow>, BackendError> {
        let mut tries = 1;
        let mut is_repeated = false;
        loop {
            match self.try_ask(&call).await {
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

    async fn try_ask(&mut self, call: &Call<'_>) -> sqlx::Result<Option<PgRow>> {
        let Some(connection) = &mut self.connection else {
            return Err(sqlx::Error::WorkerCrashed);
        };
        self.state = State::Asked;
        let answered = call.fetch(connection, self.opened.route).await;
        self.state = match &answered {
            Err(error) if ends_connection(error) => State::Useless,
            _ => State::Sound,
        };
        answered
    }

    /// Puts a fresh connection in the place of this one.
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

    /// Lets the connection be closed in place of being lent again, and the idle ones with it: it leads to a server that is
    /// of no use.
    pub(crate) fn give_up(&mut self) {
        self.state = State::Useless;
        self.pool.close_idle();
    }

    /// The connection itself, for what is more than a statement. It is closed afterwards unless [`put_back`](Self::put_back)
    /// says that it is as it was.
    pub(crate) fn take_out(&mut self) -> sqlx::Result<&mut PgConnection> {
        self.state = State::Useless;
        self.connection.as_mut().ok_or(sqlx::Error::WorkerCrashed)
    }

    /// See [`take_out`](Self::take_out).
    pub(crate) fn put_back(&mut self) {
        self.state = State::Sound;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Elsewhere than on a runtime, a connection can only be closed.
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

/// A connection whose statement was given up. No other one is opened in its place before the statement has ended.
struct GivenUp {
    connection: PgConnection,
    opened: Opened,
    pool: Connections,
    _turn: Option<OwnedSemaphorePermit>,
}

impl GivenUp {
    /// Ends the statement, and keeps the connection if it answers then.
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

/// Whether a connection answers, whatever has become of the statement before.
async fn answers(connection: &mut PgConnection) -> bool {
    match connection.ping().await {
        Err(error) if error.as_database_error().is_some() && !ends_connection(&error) => {
            connection.ping().await.is_ok()
        }
        answered => answered.is_ok(),
    }
}
