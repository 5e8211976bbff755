//! Who waits for the end of which claim: many waiters on one connection.
//!
//! Owns a connection of its own that Redis pushes to, one channel a key, and the count of those who wait on it. A
//! message says only that a record has changed; what it is now, waiters look up themselves. So a message that is lost
//! costs them time and never the answer: when the connection breaks, all are told to look again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use idem_core::{BackendError, BackendErrorKind, Changed};
use redis::aio::ConnectionManager;
use redis::{Client, ErrorKind, FromRedisValue as _, ProtocolVersion, PushInfo, PushKind, RedisError, RedisResult};
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, mpsc, watch};

use crate::connection::tuned;
use crate::error::backend_error;

/// How long the server may take to confirm a subscription.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many channels one command subscribes to or leaves.
const BATCH: usize = 256;

/// The waiters of one backend.
pub(crate) struct Subscriptions {
    channels: Arc<Channels>,
    orders: mpsc::UnboundedSender<Order>,
}

/// One entry a channel that somebody waits on.
#[derive(Default)]
struct Channels(Mutex<HashMap<String, Waiters>>);

struct Waiters {
    count: usize,
    channel: Arc<Channel>,
}

struct Channel {
    changed: Arc<Notify>,
    /// What the server said to the subscription, once it has.
    confirmed: watch::Sender<Option<Result<(), RedisError>>>,
}

/// What the connection has to do next. Orders are given under the lock of the channels, so they are carried out in the
/// order of what they are for.
enum Order {
    Subscribe(String, Arc<Channel>),
    Unsubscribe(String),
}

impl Subscriptions {
    /// Starts the task that owns the connection. It connects when somebody waits for the first time, and ends when
    /// this and all who wait are gone.
    pub(crate) fn start(client: &Client) -> RedisResult<Self> {
        let settings = client.get_connection_info().clone();
        let redis = settings.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(settings.set_redis_settings(redis))?;
        let channels = Arc::<Channels>::default();
        let pushed = Arc::downgrade(&channels);
        let receive = move |info: PushInfo| pushed.upgrade().ok_or(()).map(|channels| channels.receive(&info));
        // A subscription that is not confirmed in time fails, so that those behind it get their turn.
        let config = tuned().set_response_timeout(Some(PATIENCE)).set_push_sender(receive);
        let connection = ConnectionManager::new_lazy_with_config(client, config)?;
        let (orders, receiver) = mpsc::unbounded_channel();
        tokio::spawn(carry_out(receiver, connection, Arc::downgrade(&channels)));
        Ok(Self { channels, orders })
    }

    /// Waits for the next message on `channel`, from a moment on that lies before this returns.
    pub(crate) async fn changed(&self, channel: String) -> Result<Changed, BackendError> {
        let (subscription, changed) = self.join(channel);
        let mut confirmed = subscription.channel.confirmed.subscribe();
        let unconfirmed = |_| BackendError::new(BackendErrorKind::Unavailable, "the subscribing task has ended");
        let confirmed = confirmed.wait_for(Option::is_some).await.map_err(unconfirmed)?.clone();
        match confirmed {
            Some(Err(error)) => Err(backend_error("subscribing to a record", error)),
            _ => Ok(Changed::new(async move {
                changed.await;
                drop(subscription);
            })),
        }
    }
}

impl Subscriptions {
    /// Becomes one of the waiters on a channel, which may not be confirmed yet.
    fn join(&self, name: String) -> (Subscription, OwnedNotified) {
        let mut channels = self.channels.lock();
        let waiters = channels.entry(name.clone()).or_insert_with(|| {
            let channel = Arc::new(Channel {
                changed: Arc::default(),
                confirmed: watch::Sender::new(None),
            });
            if self
                .orders
                .send(Order::Subscribe(name.clone(), channel.clone()))
                .is_err()
            {
                let ended = RedisError::from((ErrorKind::Client, "the runtime of the subscribing task has ended"));
                channel.confirmed.send_replace(Some(Err(ended)));
            }
            Waiters { count: 0, channel }
        });
        waiters.count += 1;
        let channel = waiters.channel.clone();
        let changed = channel.changed.clone().notified_owned();
        let subscription = Subscription {
            name,
            channel,
            channels: self.channels.clone(),
            orders: self.orders.clone(),
        };
        (subscription, changed)
    }
}

impl Channels {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Waiters>> {
        // Every change of the map is a single call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the server, or the client about its connection, has pushed.
    fn receive(&self, info: &PushInfo) {
        match info.kind {
            PushKind::Message | PushKind::SMessage => {
                let name = info.data.first().cloned().map(String::from_redis_value);
                if let Some(Ok(name)) = name
                    && let Some(waiters) = self.lock().get(&name)
                {
                    waiters.channel.changed.notify_waiters();
                }
            }
            PushKind::Disconnection => {
                // No subscription has survived; whoever still waits subscribes anew.
                for (_, waiters) in self.lock().drain() {
                    waiters.channel.changed.notify_waiters();
                }
            }
            _ => {}
        }
    }
}

/// One waiter's share in a channel.
struct Subscription {
    name: String,
    channel: Arc<Channel>,
    channels: Arc<Channels>,
    orders: mpsc::UnboundedSender<Order>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut channels = self.channels.lock();
        // After a broken connection there may be none, or another one by that name.
        let Some(waiters) = channels
            .get_mut(&self.name)
            .filter(|waiters| Arc::ptr_eq(&waiters.channel, &self.channel))
        else {
            return;
        };
        waiters.count -= 1;
        if waiters.count == 0 {
            channels.remove(&self.name);
            let _ = self.orders.send(Order::Unsubscribe(std::mem::take(&mut self.name)));
        }
    }
}

/// Carries out orders until nobody can give any more, as many at once as are alike.
async fn carry_out(
    mut orders: mpsc::UnboundedReceiver<Order>,
    mut connection: ConnectionManager,
    channels: Weak<Channels>,
) {
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(first) => first,
            None => match orders.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        match first {
            Order::Subscribe(name, channel) => {
                let mut batch = vec![(name, channel)];
                while batch.len() < BATCH {
                    match orders.try_recv() {
                        Ok(Order::Subscribe(name, channel)) => batch.push((name, channel)),
                        other => {
                            next = other.ok();
                            break;
                        }
                    }
                }
                subscribe(&mut connection, &channels, &batch).await;
            }
            Order::Unsubscribe(name) => {
                let mut batch = vec![name];
                while batch.len() < BATCH {
                    match orders.try_recv() {
                        Ok(Order::Unsubscribe(name)) => batch.push(name),
                        other => {
                            next = other.ok();
                            break;
                        }
                    }
                }
                unsubscribe(&mut connection, &batch).await;
            }
        }
    }
}

async fn subscribe(connection: &mut ConnectionManager, channels: &Weak<Channels>, batch: &[(String, Arc<Channel>)]) {
    let names: Vec<_> = batch.iter().map(|(name, _)| name.as_str()).collect();
    let said = connection.subscribe(names).await;
    // Whoever waited on it may have left with the connection before this one.
    let abandoned: Vec<_> = {
        let Some(channels) = channels.upgrade() else { return };
        let held = channels.lock();
        batch
            .iter()
            .filter(|(name, _)| !held.contains_key(name))
            .map(|(name, _)| name.clone())
            .collect()
    };
    for (_, channel) in batch {
        channel.confirmed.send_replace(Some(said.clone()));
    }
    if !abandoned.is_empty() {
        unsubscribe(connection, &abandoned).await;
    }
}

async fn unsubscribe(connection: &mut ConnectionManager, names: &[String]) {
    // A connection that has failed has no subscriptions left.
    if let Err(error) = connection.unsubscribe(names).await {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "unsubscribing from records failed"
        );
    }
}
