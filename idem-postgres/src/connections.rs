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

mod lent;
mod opening;

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use idem_core::BackendError;
pub(crate) use lent::Lent;
use opening::{Opened, Opening, Process, find_route, process};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, PgPool};
use tokio::runtime::{self, Handle};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::backend_error;
use crate::protocol::Route;

/// How many connections there are at most where nothing else is set.
pub(crate) const DEFAULT_MOST: u32 = 10;

/// How many connections are opened at a time. A server that is asked for all at once opens none of them in time, and mostly
/// one that is lent comes back before.
const OPENED_AT_A_TIME: usize = 4;

/// How long a connection has to answer before it is closed: one that is being opened, and one whose statement was given
/// up.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

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
                    return Ok(Lent::new(self, connection, idle.opened, true, turn));
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
            Ok(Lent::new(&connections, connection, opened, false, turn))
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
            None => Ok(self.lend("connecting").await?.route()),
        }
    }

    fn known(&self) -> Option<Opened> {
        self.lock_route().clone()
    }

    fn lock_route(&self) -> MutexGuard<'_, Option<Opened>> {
        self.0.route.lock().unwrap_or_else(PoisonError::into_inner)
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
