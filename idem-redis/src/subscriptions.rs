//! Who waits for the end of which claim.
//!
//! Owns the channels that somebody waits on, one a key, and who is told when. A message says only that a record has
//! changed; what it is now, waiters look up themselves. So a message that is lost costs them time and never the
//! answer: when the link that messages come over fails, all are told to look again. The link is the
//! [`subscriber`]'s.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use idem_core::Changed;
use redis::{ErrorKind, FromRedisValue as _, PushInfo, PushKind, RedisError, RedisResult};
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, SetOnce, mpsc};

use crate::client::RedisClient;
use crate::subscriber;

/// The waiters of one backend.
#[derive(Clone)]
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
    /// Whether the server has ended the subscription.
    pub(crate) has_ended: bool,
    /// Whether it may be there all the same: the client may have subscribed at the other node by itself.
    pub(crate) is_doubtful: bool,
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

    /// Whether the task that owns the link is there.
    pub(crate) fn can_be_joined(&self) -> bool {
        !self.orders.is_closed()
    }

    /// Tells all who wait to look again, and to subscribe anew over another link.
    pub(crate) fn lose(&self) {
        let generation = self.channels.generation();
        self.channels.lose(generation);
    }

    /// Waits for the next message on `channel`, from a moment on that lies before this returns.
    pub(crate) async fn changed(&self, channel: String) -> RedisResult<Changed> {
        let (subscription, changed) = self.join(channel);
        match subscription.channel.confirmed.wait().await {
            Err(error) => Err(error.clone()),
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
                has_ended: false,
                is_doubtful: false,
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

    /// What `orders` come to now, where the link is still the one of this `generation`.
    pub(crate) fn settle(&self, generation: u64, orders: Vec<Order>) -> Result<Settled, Vec<Order>> {
        let mut state = self.lock();
        if state.generation != generation {
            return Err(orders);
        }
        let mut settled = Settled::default();
        for order in orders {
            let Order { name, joins, .. } = order;
            if order.has_ended {
                settled.ended.insert(name.clone());
                if order.is_doubtful {
                    settled.doubtful.insert(name.clone());
                }
                // Confirmed since: they rely on what has ended.
                let is_confirmed = |waiters: &Waiters| matches!(waiters.channel.confirmed.get(), Some(Ok(())));
                if state.waiters.get(&name).is_some_and(is_confirmed)
                    && let Some(waiters) = state.waiters.remove(&name)
                {
                    waiters.channel.changed.notify_waiters();
                }
            }
            let waiters = state.waiters.get(&name);
            match joins {
                Some(channel) => match waiters {
                    Some(waiters) if Arc::ptr_eq(&waiters.channel, &channel) => settled.wanted.push((name, channel)),
                    // Told to look again meanwhile, when a link was lost; or gone.
                    _ => channel.confirm(Ok(())),
                },
                None if waiters.is_none() => {
                    settled.unwanted.insert(name);
                }
                None => {}
            }
        }
        Ok(settled)
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
        let is_doubtful = state.waiters.get(&name).is_some_and(is_confirmed);
        if is_doubtful && let Some(waiters) = state.waiters.remove(&name) {
            waiters.channel.changed.notify_waiters();
        }
        // Also where nobody is told: who joins later must not rely on it.
        if let Some(orders) = orders.upgrade() {
            let _ = orders.send(Order {
                name,
                joins: None,
                has_ended: true,
                is_doubtful,
            });
        }
    }
}

/// What is to be done about some channels.
#[derive(Default)]
pub(crate) struct Settled {
    /// Somebody waits on them, whose channels they are.
    pub(crate) wanted: Vec<(String, Arc<Channel>)>,
    /// Nobody does any more.
    pub(crate) unwanted: HashSet<String>,
    /// The server has ended their subscriptions.
    pub(crate) ended: HashSet<String>,
    /// Of those, which may be there all the same.
    pub(crate) doubtful: HashSet<String>,
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
            let _ = self.orders.send(Order {
                name,
                joins: None,
                has_ended: false,
                is_doubtful: false,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use redis::Value;

    use super::*;

    /// Subscriptions without a task: orders pile up.
    fn idle() -> (Subscriptions, mpsc::UnboundedReceiver<Order>) {
        let (orders, receiver) = mpsc::unbounded_channel();
        let channels = Arc::default();
        (Subscriptions { channels, orders }, receiver)
    }

    fn given(orders: &mut mpsc::UnboundedReceiver<Order>) -> Vec<Order> {
        std::iter::from_fn(|| orders.try_recv().ok()).collect()
    }

    fn push(kind: PushKind) -> PushInfo {
        let data = vec![Value::BulkString(b"c".to_vec())];
        PushInfo { kind, data }
    }

    #[tokio::test]
    async fn many_waiters_are_one_subscription_and_the_last_one_ends_it() {
        let (subscriptions, mut orders) = idle();
        let waiting: Vec<_> = (0..3).map(|_| subscriptions.join("c".into())).collect();
        let joined = given(&mut orders);
        assert!(matches!(&joined[..], [Order { joins: Some(_), .. }]));
        for (subscription, changed) in waiting {
            assert!(given(&mut orders).is_empty());
            drop((subscription, changed));
        }
        assert!(matches!(&given(&mut orders)[..], [Order { joins: None, .. }]));
        assert!(subscriptions.channels.is_empty());
    }

    #[tokio::test]
    async fn an_order_from_before_a_link_was_lost_is_not_carried_out_on_the_next_one() {
        let (subscriptions, mut orders) = idle();
        let (before, changed) = subscriptions.join("c".into());
        let of_before = given(&mut orders);

        subscriptions.channels.lose(0);
        subscriptions.channels.lose(0);

        assert!(changed.now_or_never().is_some(), "its waiter is told to look again");
        let (_after, _changed) = subscriptions.join("c".into());
        let of_after = given(&mut orders);
        let Err(of_before) = subscriptions.channels.settle(0, of_before) else {
            panic!("that link is gone");
        };
        let all: Vec<_> = of_before.into_iter().chain(of_after).collect();
        let wanted = subscriptions.channels.settle(1, all).unwrap_or_default().wanted;
        assert_eq!(wanted.len(), 1, "the second waiter's alone");
        assert!(!Arc::ptr_eq(&wanted[0].1, &before.channel));
        assert!(matches!(before.channel.confirmed.get(), Some(Ok(()))));
        drop(before);
        assert!(
            given(&mut orders).is_empty(),
            "nothing of the lost link is left to leave"
        );
    }

    #[tokio::test]
    async fn waiters_of_a_slot_that_has_moved_look_again_and_those_who_join_after_a_leave_do_not() {
        let (subscriptions, mut orders) = idle();
        let sender = subscriptions.orders.downgrade();
        let (subscription, changed) = subscriptions.join("c".into());
        subscriptions
            .channels
            .receive(0, &push(PushKind::SUnsubscribe), &sender);
        assert!(
            !subscriptions.channels.is_empty(),
            "not confirmed yet: somebody else has left"
        );
        subscription.channel.confirm(Ok(()));
        given(&mut orders);

        subscriptions
            .channels
            .receive(0, &push(PushKind::SUnsubscribe), &sender);

        assert!(changed.now_or_never().is_some());
        assert!(subscriptions.channels.is_empty());
        assert!(matches!(&given(&mut orders)[..], [Order { joins: None, .. }]));
    }
}
