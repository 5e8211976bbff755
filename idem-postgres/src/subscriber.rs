//! The task that owns the connection on which messages arrive.
//!
//! Owns one connection. It listens to the channel of the table, and holds an advisory lock for each record that a request of
//! this process waits for. The lock tells the statement that ends the claim to send a message. If the connection fails, or does
//! not answer while requests wait, it is dropped together with its locks. The next order opens a new one. Does not own the
//! waiters: [`subscriptions`](crate::subscriptions).

use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{PgPool, Row as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::record::Id;
use crate::subscriptions::{Join, Joined, Order, Waiting};

/// The limit of connecting, and of an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// After this long without a message, the connection is checked while requests wait.
const QUIET: Duration = Duration::from_secs(5);

/// The most records that this process holds a lock for. A server with default settings has room for 6,400 locks of all its
/// clients.
const MOST_LOCKS: usize = 512;

/// The most orders that are carried out together.
const BATCH: usize = 512;

/// Passes messages on until every sender of orders is dropped. Each new connection uses the current options of `application`.
pub(crate) async fn run(
    application: PgPool,
    channel: String,
    mut orders: mpsc::UnboundedReceiver<Order>,
    waiting: Arc<Waiting>,
) {
    let mut batch = Vec::new();
    while orders.recv_many(&mut batch, BATCH).await > 0 {
        if !batch.iter().any(|order| matches!(order, Order::Join(_))) {
            // Without a connection there are no locks to release.
            batch.clear();
            continue;
        }
        let opened = timeout(ANSWER_LIMIT, open(&application, &channel)).await;
        let listener = match opened.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(listener) => listener,
            Err(error) => {
                refuse(&mut batch, &mut orders, error);
                continue;
            }
        };
        waiting.begin();
        let mut listening = Listening {
            listener,
            held: HashSet::new(),
        };
        let ended = listening.pass_on(&mut batch, &mut orders, &waiting).await;
        waiting.lose();
        match ended {
            Ok(()) => return,
            Err(error) => tracing::debug!(
                error = &error as &dyn Error,
                "the connection that waiters rely on has failed; they look again and ask anew"
            ),
        }
    }
}

/// Connects and listens. The pool has one connection; it exists because the listener takes a connection only from a pool.
async fn open(application: &PgPool, channel: &str) -> sqlx::Result<PgListener> {
    let options = application.connect_options();
    let alone = PgPoolOptions::new().max_connections(1).max_lifetime(None);
    let pool = alone.idle_timeout(None).connect_lazy_with(options.as_ref().clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    // A listener that reconnects by itself would report too late that messages may have been missed.
    listener.eager_reconnect(false);
    listener.listen(channel).await?;
    Ok(listener)
}

/// An open connection, and the records that it holds a lock for.
struct Listening {
    listener: PgListener,
    held: HashSet<Id>,
}

impl Listening {
    /// Carries out the orders in `batch`, then passes messages on until the connection fails. `Ok` when every sender of orders is
    /// dropped.
    async fn pass_on(
        &mut self,
        batch: &mut Vec<Order>,
        orders: &mut mpsc::UnboundedReceiver<Order>,
        waiting: &Waiting,
    ) -> sqlx::Result<()> {
        let lost = || sqlx::Error::Io(std::io::ErrorKind::ConnectionAborted.into());
        loop {
            let carried_out = timeout(ANSWER_LIMIT, self.carry_out(batch, waiting)).await;
            carried_out.map_err(|_elapsed| lost())??;
            tokio::select! {
                received = orders.recv_many(batch, BATCH) => if received == 0 {
                    return Ok(());
                },
                received = timeout(QUIET, self.listener.try_recv()) => match received {
                    Ok(message) => waiting.tell(message?.ok_or_else(lost)?.payload()),
                    Err(_elapsed) if waiting.is_empty() => {}
                    Err(_elapsed) => {
                        let sign = timeout(ANSWER_LIMIT, sqlx::query("SELECT 1").execute(&mut self.listener));
                        sign.await.map_err(|_elapsed| lost())??;
                    }
                },
            }
        }
    }

    /// Takes locks and releases locks as the orders require, by one statement each. Whether a record has waiters is looked up in
    /// `waiting` and not derived from the orders, because waiters may have come and gone since.
    async fn carry_out(&mut self, batch: &mut Vec<Order>, waiting: &Waiting) -> sqlx::Result<()> {
        let (mut joins, mut touched) = (Vec::new(), HashSet::new());
        for order in batch.drain(..) {
            match order {
                Order::Leave(id) => drop(touched.insert(id)),
                Order::Join(join) => {
                    touched.insert(join.id);
                    joins.push(join);
                }
            }
        }
        let (wanted, left): (HashSet<_>, HashSet<_>) = touched.into_iter().partition(|id| waiting.is_waited_for(id));
        self.unlock(left.into_iter().filter(|id| self.held.contains(id)).collect())
            .await?;
        self.lock(wanted.into_iter().filter(|id| !self.held.contains(id)).collect())
            .await?;
        for join in joins {
            let joined = if self.held.contains(&join.id) {
                waiting.hold(&join.id);
                Joined::Told
            } else {
                Joined::Untold
            };
            join.answer(Ok(joined));
        }
        Ok(())
    }

    /// Locks the records, except those whose claim is being ended at this moment.
    async fn lock(&mut self, wanted: Vec<Id>) -> sqlx::Result<()> {
        let room = MOST_LOCKS.saturating_sub(self.held.len());
        let wanted: Vec<_> = wanted.into_iter().take(room).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let locks: Vec<i64> = wanted.iter().map(Id::lock).collect();
        let locking = sqlx::query(
            "SELECT pg_try_advisory_lock_shared(lock) FROM unnest($1) WITH ORDINALITY AS wanted (lock, at) ORDER BY at",
        );
        let locked = locking.bind(locks).fetch_all(&mut self.listener).await?;
        for (id, row) in wanted.into_iter().zip(locked) {
            if row.try_get(0)? {
                self.held.insert(id);
            }
        }
        Ok(())
    }

    async fn unlock(&mut self, left: Vec<Id>) -> sqlx::Result<()> {
        if left.is_empty() {
            return Ok(());
        }
        let locks: Vec<i64> = left.iter().map(Id::lock).collect();
        let unlocking = sqlx::query("SELECT pg_advisory_unlock_shared(lock) FROM unnest($1) AS left_ones (lock)");
        unlocking.bind(locks).execute(&mut self.listener).await?;
        self.held.retain(|id| !left.contains(id));
        Ok(())
    }
}

/// Fails these orders and all queued ones: each would wait as long as these have.
fn refuse(batch: &mut Vec<Order>, orders: &mut mpsc::UnboundedReceiver<Order>, error: sqlx::Error) {
    let error = Arc::new(error);
    while let Ok(order) = orders.try_recv() {
        batch.push(order);
    }
    for order in batch.drain(..) {
        if let Order::Join(join) = order {
            Join::answer(join, Err(error.clone()));
        }
    }
}
