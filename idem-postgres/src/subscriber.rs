//! The connection that messages come over.
//!
//! Owns one connection besides the application's pool, which listens to the channel of the table. A connection that
//! fails, or falls silent while somebody waits, is dropped, and opened anew when somebody asks.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::subscriptions::{Order, Waiting};

/// How long connecting may take, and an answer that shows that the connection is alive.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// After how long without a message a connection that somebody waits on is asked for a sign of life.
const QUIET: Duration = Duration::from_secs(5);

/// Passes messages on until nobody can ask for any more.
pub(crate) async fn run(
    options: PgConnectOptions,
    channel: String,
    mut orders: mpsc::UnboundedReceiver<Order>,
    waiting: Arc<Waiting>,
) {
    while let Some(first) = orders.recv().await {
        let listener = match timeout(ANSWER_LIMIT, open(&options, &channel)).await {
            Ok(Ok(listener)) => listener,
            Ok(Err(error)) => {
                refuse(first, &mut orders, error);
                continue;
            }
            Err(_elapsed) => {
                refuse(first, &mut orders, sqlx::Error::PoolTimedOut);
                continue;
            }
        };
        waiting.begin();
        confirm(first);
        let ended = pass_on(listener, &mut orders, &waiting).await;
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

/// Connects and listens. The pool is there for the one connection, since the listener takes it from nothing else.
async fn open(options: &PgConnectOptions, channel: &str) -> sqlx::Result<PgListener> {
    let alone = PgPoolOptions::new().max_connections(1).max_lifetime(None);
    let pool = alone.idle_timeout(None).connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    // One that connects again by itself would not say what it has missed in time.
    listener.eager_reconnect(false);
    listener.listen(channel).await?;
    Ok(listener)
}

/// Passes messages on until the connection fails; `Ok` once nobody can ask for any more.
async fn pass_on(
    mut listener: PgListener,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    waiting: &Waiting,
) -> sqlx::Result<()> {
    let lost = || sqlx::Error::Io(std::io::ErrorKind::ConnectionAborted.into());
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => confirm(order),
                None => return Ok(()),
            },
            received = timeout(QUIET, listener.try_recv()) => match received {
                Ok(message) => waiting.tell(message?.ok_or_else(lost)?.payload()),
                Err(_elapsed) if waiting.is_empty() => {}
                Err(_elapsed) => {
                    let sign = timeout(ANSWER_LIMIT, sqlx::query("SELECT 1").execute(&mut listener));
                    sign.await.map_err(|_elapsed| lost())??;
                }
            },
        }
    }
}

fn confirm(order: Order) {
    // Whoever asked may have gone.
    let _ = order.send(Ok(()));
}

/// Fails these orders and all behind them: each would wait as long as the one before.
fn refuse(first: Order, orders: &mut mpsc::UnboundedReceiver<Order>, error: sqlx::Error) {
    let error = Arc::new(error);
    let mut next = Some(first);
    while let Some(order) = next {
        let _ = order.send(Err(error.clone()));
        next = orders.try_recv().ok();
    }
}
