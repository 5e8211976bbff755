//! Connections of idem's own, lent for the length of a call.
//!
//! Owns a small pool beside the application's, so that nothing which others do to their connections, or hold them for,
//! reaches a claim. It is not sqlx's: that one asks the server for a sign of life whenever it lends a connection and
//! whenever it gets one back, two round trips beside the one of the statement. Here nobody else has used a connection, so
//! its last answer tells how it is. A connection is closed and not lent again when it has failed, when it leads to a server
//! that takes no writes, when it was refused a permission, and when its answer does not come. A statement that is given up is
//! cancelled on the server, and its place in the pool is taken until then: a table that somebody has locked does not fill
//! the server with statements that wait for it (IDEM-22).
//!
//! Connections are opened when they are needed, a few at a time, with the options that the application's pool has at that moment: a
//! rotated password reaches them. Does not own what is said over them.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use idem_core::BackendError;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, PgPool, Row as _};
use tokio::runtime::{self, Handle};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::{backend_error, code, ends_connection, is_collision, repeated_error};
use crate::protocol::{Call, Route};

/// How many connections there are at most where nothing else is set.
pub(crate) const DEFAULT_MOST: u32 = 10;

/// How many connections are opened at a time. A server that is asked for all at once opens none of them in time, and mostly
/// one that is lent comes back before.
const OPENED_AT_A_TIME: usize = 4;

/// How often a statement that had to give way is tried.
const TRIES: usize = 8;

/// How long a connection has to answer before it is closed: one that is being opened, and one whose statement was given
/// up.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// How long a connection whose statement was given up may take by itself, before the statement is cancelled.
const GRACE: Duration = Duration::from_millis(100);

/// After how long without a call a connection is asked for a sign of life before it is lent. Firewalls forget connections
/// after minutes, and say nothing.
const QUIET: Duration = Duration::from_secs(30);

/// How long the sign of life may take.
const SIGN_LIMIT: Duration = Duration::from_millis(250);

/// After how long without a call a connection is closed.
const IDLE_LIMIT: Duration = Duration::from_mins(10);

/// The pool; clones share it.
#[derive(Clone)]
pub(crate) struct Connections(Arc<Inner>);

struct Inner {
    /// Asked for its options, and for nothing else.
    application: PgPool,
    turns: Arc<Semaphore>,
    openings: Arc<Semaphore>,
    /// A connection is idle that was not before.
    returned: Notify,
    idle: Mutex<Vec<Idle>>,
    /// What was found out last.
    route: Mutex<Option<Opened>>,
    /// Whose turn it is to cancel a statement, over a connection beside the pool's.
    cancelling: tokio::sync::Mutex<()>,
}

/// A connection that nobody uses.
struct Idle {
    connection: PgConnection,
    since: Instant,
    /// Whose reactor it is driven by. On another one it would never answer.
    runtime: runtime::Id,
    opened: Opened,
}

/// How a connection was opened.
#[derive(Clone)]
struct Opened {
    /// With these options of the application's pool. It is not lent any more once the pool has others.
    options: Arc<PgConnectOptions>,
    route: Route,
    /// The server's process, where no pooler stands in between.
    process: Option<Process>,
}

/// One process among all that ever were on any server.
#[derive(Clone)]
struct Process {
    id: i32,
    /// In seconds, with a fraction.
    started: String,
}

impl Connections {
    pub(crate) fn of(application: PgPool, most: u32) -> Self {
        let most = usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner {
            application,
            turns: Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS))),
            openings: Arc::new(Semaphore::new(OPENED_AT_A_TIME)),
            returned: Notify::new(),
            idle: Mutex::default(),
            route: Mutex::default(),
            cancelling: tokio::sync::Mutex::default(),
        }))
    }

    /// Where handlers' transactions begin.
    pub(crate) fn application(&self) -> &PgPool {
        &self.0.application
    }

    /// Lends a connection, which is there for the next call when it is dropped.
    pub(crate) async fn lend(&self, what: &'static str) -> Result<Lent, BackendError> {
        let lent = self.try_lend().await;
        lent.map_err(|error| backend_error(what, error).not_written())
    }

    async fn try_lend(&self) -> sqlx::Result<Lent> {
        let turn = turn(&self.0.turns).await?;
        let may_open = loop {
            // From here on it is told, also while it looks.
            let mut returned = pin!(self.0.returned.notified());
            returned.as_mut().enable();
            if let Some(idle) = self.take_idle() {
                let mut connection = idle.connection;
                let is_sound =
                    idle.since.elapsed() < QUIET || matches!(timeout(SIGN_LIMIT, connection.ping()).await, Ok(Ok(())));
                if is_sound {
                    return Ok(self.lent(connection, idle.opened, true, turn));
                }
                // What has made this one silent has mostly met the others, too.
                self.close_idle();
                continue;
            }
            tokio::select! {
                biased;
                may_open = self::turn(&self.0.openings) => break may_open?,
                () = returned => {}
            }
        };
        let mut opening = self.opening(turn, may_open);
        let opened = match &mut opening.0 {
            Some(opening) => opening.await,
            None => Err(sqlx::Error::WorkerCrashed),
        };
        opening.0 = None;
        opened
    }

    /// Keeps a connection for the next call.
    fn keep(&self, connection: PgConnection, opened: Opened) {
        self.idle().push(Idle {
            connection,
            since: Instant::now(),
            runtime: Handle::current().id(),
            opened,
        });
        // All who wait: a connection is of use to those of one runtime alone.
        self.0.returned.notify_waiters();
    }

    /// The connection that was used last, of those that this runtime drives. Those are closed that nobody has used for long,
    /// or that were opened with other options than the application's pool has now.
    fn take_idle(&self) -> Option<Idle> {
        let (runtime, options) = (Handle::current().id(), self.0.application.connect_options());
        let now = Instant::now();
        let mut idle = self.idle();
        idle.retain(|idle| {
            now.saturating_duration_since(idle.since) < IDLE_LIMIT && Arc::ptr_eq(&idle.opened.options, &options)
        });
        let last = idle.iter().rposition(|idle| idle.runtime == runtime)?;
        Some(idle.remove(last))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        // No change of it can be seen half-done.
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a connection, to its end also where the call that it is for is given up: on a server that has just come back
    /// and is asked for all connections at once, that takes longer than a call may, and none would ever be open.
    fn opening(&self, turn: OwnedSemaphorePermit, may_open: OwnedSemaphorePermit) -> Opening {
        let connections = self.clone();
        Opening(Some(Box::pin(async move {
            let _may_open = may_open;
            let opened = timeout(ANSWER_LIMIT, connections.open()).await;
            let (connection, opened) = opened.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
            Ok(connections.lent(connection, opened, false, turn))
        })))
    }

    /// A connection to wherever the application's pool leads at this moment.
    async fn open(&self) -> sqlx::Result<(PgConnection, Opened)> {
        let options = self.0.application.connect_options();
        if let Some(known) = self.known().filter(|known| Arc::ptr_eq(&known.options, &options)) {
            let mut connection = options.connect().await?;
            let process = process(&mut connection, known.route).await?;
            return Ok((connection, Opened { process, ..known }));
        }
        let (mut connection, route) = find_route(&options).await?;
        tracing::debug!(?route, "connected to Postgres for the records");
        let process = process(&mut connection, route).await?;
        let opened = Opened {
            options,
            route,
            process,
        };
        *self.lock_route() = Some(opened.clone());
        Ok((connection, opened))
    }

    /// What stands between this process and the server; connects where that is not known yet.
    pub(crate) async fn route(&self) -> Result<Route, BackendError> {
        match self.known() {
            Some(known) => Ok(known.route),
            None => Ok(self.lend("connecting").await?.opened.route),
        }
    }

    fn known(&self) -> Option<Opened> {
        self.lock_route().clone()
    }

    fn lock_route(&self) -> MutexGuard<'_, Option<Opened>> {
        self.0.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lent(&self, connection: PgConnection, opened: Opened, was_idle: bool, turn: OwnedSemaphorePermit) -> Lent {
        Lent {
            connection: Some(connection),
            state: State::Sound,
            opened,
            was_idle,
            pool: self.clone(),
            turn: Some(turn),
        }
    }

    /// Cancels what the connection that was `opened` so waits for, if that is a lock. What is being done is left to be done:
    /// a lease that is renewed late is renewed, and a commit that waits for a standby must not stop waiting. One at a time:
    /// the connection for it is not of the pool.
    async fn cancel(&self, opened: &Opened) -> sqlx::Result<()> {
        let Some(Process { id, started }) = &opened.process else {
            return Ok(());
        };
        let _turn = self.0.cancelling.lock().await;
        let mut connection = opened.options.connect().await?;
        // Numbers, which have nothing in them to be escaped. The options may lead to another server by now.
        let cancel = format!(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = {id} AND wait_event_type = 'Lock' \
             AND extract(epoch FROM backend_start)::text = '{started}'"
        );
        sqlx::raw_sql(AssertSqlSafe(cancel)).execute(&mut connection).await?;
        connection.close().await
    }

    /// Closes the connections that nobody uses. What one of them has met, such as a server that was restarted or takes no
    /// writes any more, the others are about to meet.
    fn close_idle(&self) {
        let closed = std::mem::take(&mut *self.idle());
        drop(closed);
    }
}

async fn turn(turns: &Arc<Semaphore>) -> sqlx::Result<OwnedSemaphorePermit> {
    turns.clone().acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)
}

/// Opens the first connection, and finds out by it whether a pooler stands in between: a pooler does not take a setting
/// that a session begins with, or leaves it out.
async fn find_route(options: &PgConnectOptions) -> sqlx::Result<(PgConnection, Route)> {
    const SETTING: &str = "idem.direct";
    /// How servers and poolers say that they do not take the setting. Any other refusal is not about it.
    const NOT_TAKEN: [&str; 5] = ["08P01", "0A000", "22023", "42704", "42601"];
    let mut connection = match options.clone().options([(SETTING, "on")]).connect().await {
        Err(error) if code(&error).is_some_and(|code| NOT_TAKEN.contains(&&*code)) => {
            return Ok((options.connect().await?, Route::Pooled));
        }
        connected => connected?,
    };
    let setting = sqlx::raw_sql("SELECT true WHERE current_setting('idem.direct', true) = 'on'");
    let is_direct = setting.fetch_optional(&mut connection).await?.is_some();
    Ok((connection, if is_direct { Route::Direct } else { Route::Pooled }))
}

/// The server's process that serves a connection.
async fn process(connection: &mut PgConnection, route: Route) -> sqlx::Result<Option<Process>> {
    if route == Route::Pooled {
        return Ok(None);
    }
    let itself =
        "SELECT pid, extract(epoch FROM backend_start)::text FROM pg_stat_activity WHERE pid = pg_backend_pid()";
    let row = sqlx::raw_sql(itself).fetch_optional(connection).await?;
    let read = |row: PgRow| {
        Ok(Process {
            id: row.try_get(0)?,
            started: row.try_get(1)?,
        })
    };
    row.map(read).transpose()
}

/// A connection that is being opened. Dropped, it goes on in the background.
struct Opening(Option<Pin<Box<dyn Future<Output = sqlx::Result<Lent>> + Send>>>);

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(opening) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(opening);
        }
    }
}

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
        let may_open = self::turn(&self.pool.0.openings).await;
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
