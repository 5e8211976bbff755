//! The pool of connections for records.
//!
//! Owns a small pool beside the application's pool, so that the application's use of its connections does not affect a claim.
//!
//! - It is not a pool of sqlx. That pool checks a connection whenever it lends it and whenever it gets it back, which costs two
//!   round trips beside the one of the statement. Here only idem uses a connection, so its last answer tells its state.
//! - A connection is closed and not lent again if it has failed, if its server takes no writes, if it was refused a permission,
//!   or if it does not answer.
//! - A statement that is given up is cancelled on the server. It occupies its place in the pool until it has ended, so that a
//!   locked table does not fill the server with waiting statements (IDEM-22).
//! - Connections are opened when they are needed, a few at a time, with the current options of the application's pool. So a
//!   rotated password reaches them.
//!
//! Does not own the statements.

mod lent;
mod opening;

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use idem_core::BackendError;
pub(crate) use lent::Lent;
use opening::{Opened, Opening, Process, find_route, open, process};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};
use tokio::runtime::{self, Handle};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::backend_error;
use crate::protocol::Route;

/// The default of the most connections.
pub(crate) const DEFAULT_MOST: u32 = 10;

/// How many connections are opened at a time. A server that is asked for all connections at once may open none in time, and
/// usually a lent connection is returned sooner.
const OPENED_AT_A_TIME: usize = 4;

/// The limit of opening a connection, and of each step of ending a statement that was given up. After it, the connection is
/// closed.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// After this long without a call, a connection is pinged before it is lent. A firewall may forget a connection after minutes,
/// without notice.
const QUIET: Duration = Duration::from_secs(30);

/// The limit of that ping.
const SIGN_LIMIT: Duration = Duration::from_millis(250);

/// After this long without a call, a connection is closed.
const IDLE_LIMIT: Duration = Duration::from_mins(10);

/// The pool. Clones share it.
#[derive(Clone)]
pub(crate) struct Connections(Arc<Inner>);

struct Inner {
    /// The pool whose connect options are used. Its connections are lent to handlers' transactions only.
    application: PgPool,
    turns: Arc<Semaphore>,
    openings: Arc<Semaphore>,
    /// Wakes waiting calls when a connection becomes idle.
    returned: Notify,
    idle: Mutex<Vec<Idle>>,
    /// The route that was found last, with the options by which it was found.
    route: Mutex<Option<Opened>>,
    /// Admits one cancellation at a time, because it uses a connection beside the pool's.
    cancelling: tokio::sync::Mutex<()>,
}

/// A connection that no call uses.
struct Idle {
    connection: PgConnection,
    since: Instant,
    /// The runtime that drives the connection. On another runtime it may never answer.
    runtime: runtime::Id,
    opened: Opened,
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

    /// The pool of handlers' transactions.
    pub(crate) fn application(&self) -> &PgPool {
        &self.0.application
    }

    /// Lends a connection. Dropping it returns it to the pool.
    pub(crate) async fn lend(&self, what: &'static str) -> Result<Lent, BackendError> {
        let lent = self.try_lend().await;
        lent.map_err(|error| backend_error(what, error).not_written())
    }

    async fn try_lend(&self) -> sqlx::Result<Lent> {
        let turn = turn(&self.0.turns).await?;
        let may_open = loop {
            // Enabled before the check, so that a connection that is returned during the check is not missed.
            let mut returned = pin!(self.0.returned.notified());
            returned.as_mut().enable();
            if let Some(idle) = self.take_idle() {
                let mut connection = idle.connection;
                let is_sound =
                    idle.since.elapsed() < QUIET || matches!(timeout(SIGN_LIMIT, connection.ping()).await, Ok(Ok(())));
                if is_sound {
                    return Ok(Lent::new(self, connection, idle.opened, true, turn));
                }
                // The cause of this connection's silence has usually affected the others, too.
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
        // Wakes all waiting calls, because a connection is of use only to the calls of one runtime.
        self.0.returned.notify_waiters();
    }

    /// The most recently used idle connection of the current runtime. Closes idle connections that were not used for long, or
    /// whose options differ from the current options of the application's pool.
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
        // No panic leaves the list half-changed, so a poisoned lock is sound.
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a connection. Opening continues if the call that needs it is given up. On a server that has just come back, opening
    /// may take longer than a call's deadline; without this, no connection would ever be open.
    fn opening(&self, turn: OwnedSemaphorePermit, may_open: OwnedSemaphorePermit) -> Opening {
        let connections = self.clone();
        Opening(Some(Box::pin(async move {
            let _may_open = may_open;
            let opened = timeout(ANSWER_LIMIT, connections.open()).await;
            let (connection, opened) = opened.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
            Ok(Lent::new(&connections, connection, opened, false, turn))
        })))
    }

    /// A new connection with the current options of the application's pool.
    async fn open(&self) -> sqlx::Result<(PgConnection, Opened)> {
        let options = self.0.application.connect_options();
        if let Some(known) = self.known().filter(|known| Arc::ptr_eq(&known.options, &options)) {
            let mut connection = open(PgConnectOptions::clone(&options)).await?;
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

    /// The route to the server. Connects if the route is not known yet.
    pub(crate) async fn route(&self) -> Result<Route, BackendError> {
        match self.known() {
            Some(known) => Ok(known.route),
            None => Ok(self.lend("connecting").await?.route()),
        }
    }

    fn known(&self) -> Option<Opened> {
        self.lock_route().clone()
    }

    fn lock_route(&self) -> MutexGuard<'_, Option<Opened>> {
        self.0.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancels the statement of the connection `opened`, if the statement waits for a lock.
    ///
    /// A statement that makes progress is not cancelled: a late renewal still renews, and a commit must not stop waiting for a
    /// standby. One cancellation is made at a time, because its connection does not count in the pool.
    async fn cancel(&self, opened: &Opened) -> sqlx::Result<()> {
        let Some(Process { id, started }) = &opened.process else {
            return Ok(());
        };
        let _turn = self.0.cancelling.lock().await;
        let mut connection = open(PgConnectOptions::clone(&opened.options)).await?;
        // The values are numbers and need no escaping. The start time is compared because the options may lead to another server
        // by now, where another process has the same id.
        let cancel = format!(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = {id} AND wait_event_type = 'Lock' \
             AND extract(epoch FROM backend_start)::text = '{started}'"
        );
        sqlx::raw_sql(AssertSqlSafe(cancel)).execute(&mut connection).await?;
        connection.close().await
    }

    /// Closes the idle connections. If one connection finds that the server was restarted or takes no writes any more, the others
    /// are about to find the same.
    fn close_idle(&self) {
        let closed = std::mem::take(&mut *self.idle());
        drop(closed);
    }
}

async fn turn(turns: &Arc<Semaphore>) -> sqlx::Result<OwnedSemaphorePermit> {
    turns.clone().acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)
}
