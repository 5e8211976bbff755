//! Who waits for the end of which claim.
//!
//! Owns the channels that somebody waits on, one a key, and who is told when. A message says only that a record has
//! changed; what it is now, waiters look up themselves. So a message that is lost costs them time and never the
//! answer: when the link that messages come over fails, all are told to look again. The link is the
//! [subscriber](crate::subscriber)'s.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use idem_core::{BackendError, Changed};
use redis::{ErrorKind, FromRedisValue as _, PushInfo, PushKind, RedisError, RedisResult};
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, SetOnce, mpsc};

use crate::client::RedisClient;
use crate::error::backend_error;
use crate::subscriber;

/// The waiters of one backend.
pub(crate) struct Subscriptions {
    channels: Arc<Channels>,
    orders: mpsc::UnboundedSender<Order>,
}

/// The channels that somebody waits on.
#[derive(Default)]
pub(crate) struct Channels(Mutex<State>);

#[derive(Default)]
struct State {
    waiters: HashMap<String, Waiters>,
    /// How many links have been lost. Whoever waits does so on the link of this number.
    generation: u64,
}

struct Waiters {
    count: usize,
    channel: Arc<Channel>,
}

#[derive(Default)]
pub(crate) struct Channel {
    changed: Arc<Notify>,
    /// What the server said to the subscription, once it has.
    confirmed: SetOnce<RedisResult<()>>,
}

impl Channel {
    /// Says how its subscription went. It may be said more than once; the first time counts.
    pub(crate) fn confirm(&self, said: RedisResult<()>) {
        let _ = self.confirmed.set(said);
    }
}

/// What the subscriber has to do next. Orders are given under the lock of the channels, so they are carried out in the
/// order of what they are for.
pub(crate) struct Order {
    pub(crate) name: String,
    /// Whose subscription it is; `None` to leave the channel.
    pub(crate) joins: Option<Arc<Channel>>,
}

impl Subscriptions {
    /// Starts the task that owns the link. It connects when somebody waits for the first time, and ends when this and
    /// all who wait are gone.
    pub(crate) fn start(client: RedisClient) -> Self {
        let channels = Arc::<Channels>::default();
        let (orders, receiver) = mpsc::unbounded_channel();
        tokio::spawn(subscriber::run(
            client,
            receiver,
            orders.downgrade(),
            Arc::downgrade(&channels),
        ));
        Self { channels, orders }
    }

    /// Waits for the next message on `channel`, from a moment on that lies before this returns.
    pub(crate) async fn changed(&self, channel: String) -> Result<Changed, BackendError> {
        let (subscription, changed) = self.join(channel);
        match subscription.channel.confirmed.wait().await {
            Err(error) => Err(backend_error("subscribing to a record", error.clone())),
            Ok(()) => Ok(Changed::new(async move {
                changed.await;
                drop(subscription);
            })),
        }
    }

    /// Becomes one of the waiters on a channel, which may not be confirmed yet.
    fn join(&self, name: String) -> (Subscription, OwnedNotified) {
        let mut state = self.channels.lock();
        let waiters = state.waiters.entry(name.clone()).or_insert_with(|| {
            let channel = Arc::<Channel>::default();
            let order = Order {
                name: name.clone(),
                joins: Some(channel.clone()),
            };
            if self.orders.send(order).is_err() {
                let ended = RedisError::from((ErrorKind::Client, "the runtime of the subscribing task has ended"));
                channel.confirm(Err(ended));
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
    fn lock(&self) -> MutexGuard<'_, State> {
        // No change of the state can be seen half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the link that those who wait now rely on.
    pub(crate) fn generation(&self) -> u64 {
        self.lock().generation
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().waiters.is_empty()
    }

    /// Which of `orders` somebody still waits for, where the link is still the one of this `generation`.
    pub(crate) fn wanted(&self, generation: u64, orders: Vec<Order>) -> Result<Wanted, Vec<Order>> {
        let state = self.lock();
        if state.generation != generation {
            return Err(orders);
        }
        let mut wanted = Vec::new();
        for Order { name, joins } in orders {
            let Some(channel) = joins else { continue };
            match state.waiters.get(&name) {
                Some(waiters) if Arc::ptr_eq(&waiters.channel, &channel) => wanted.push((name, channel)),
                // Told to look again meanwhile, when a link was lost; or gone.
                _ => channel.confirm(Ok(())),
            }
        }
        Ok(wanted)
    }

    /// Tells all who wait to look again: no subscription over the link of this `generation` is left.
    pub(crate) fn lose(&self, generation: u64) {
        let mut state = self.lock();
        if state.generation == generation {
            state.generation += 1;
            for (_, waiters) in state.waiters.drain() {
                waiters.channel.changed.notify_waiters();
            }
        }
    }

    /// Takes what the server, or the client about its connection, has pushed over the link of this `generation`.
    pub(crate) fn receive(&self, generation: u64, info: &PushInfo, orders: &mpsc::WeakUnboundedSender<Order>) {
        let name = || String::from_redis_value(info.data.first()?.clone()).ok();
        match info.kind {
            PushKind::Message | PushKind::SMessage => {
                if let Some(name) = name()
                    && let Some(waiters) = self.lock().waiters.get(&name)
                {
                    waiters.channel.changed.notify_waiters();
                }
            }
            // A cluster ends a subscription when its slot moves to another node; whoever waits subscribes there.
            PushKind::SUnsubscribe => {
                if let Some(name) = name() {
                    self.moved(name, orders);
                }
            }
            PushKind::Disconnection => self.lose(generation),
            _ => {}
        }
    }

    fn moved(&self, name: String, orders: &mpsc::WeakUnboundedSender<Order>) {
        let mut state = self.lock();
        // One that is not confirmed yet was joined after somebody else had left, and that is what this is about.
        let is_confirmed = |waiters: &Waiters| matches!(waiters.channel.confirmed.get(), Some(Ok(())));
        if !state.waiters.get(&name).is_some_and(is_confirmed) {
            return;
        }
        if let Some(waiters) = state.waiters.remove(&name) {
            waiters.channel.changed.notify_waiters();
            // The client may have subscribed at the other node by itself.
            if let Some(orders) = orders.upgrade() {
                let _ = orders.send(Order { name, joins: None });
            }
        }
    }
}

/// Names of channels, and whose they are.
pub(crate) type Wanted = Vec<(String, Arc<Channel>)>;

/// One waiter's share in a channel.
struct Subscription {
    name: String,
    channel: Arc<Channel>,
    channels: Arc<Channels>,
    orders: mpsc::UnboundedSender<Order>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.channels.lock();
        // After a link was lost there may be none, or another one by that name.
        let Some(waiters) = state
            .waiters
            .get_mut(&self.name)
            .filter(|waiters| Arc::ptr_eq(&waiters.channel, &self.channel))
        else {
            return;
        };
        waiters.count -= 1;
        if waiters.count == 0 {
            state.waiters.remove(&self.name);
            let name = std::mem::take(&mut self.name);
            let _ = self.orders.send(Order { name, joins: None });
        }
    }
}
