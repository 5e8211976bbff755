//! The requests that wait for the end of a claim.
//!
//! Owns the channels that requests wait on, one per key, and the wakeup of the waiters. A message says only that a record has
//! changed; the waiters read the record again. So a lost message costs time and never the answer. If the link fails, all
//! waiters are woken to read their records again. Does not own the link: [`subscriber`].

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

/// The channels that requests wait on.
#[derive(Default)]
pub(crate) struct Channels(Mutex<State>);

#[derive(Default)]
struct State {
    waiters: HashMap<String, Waiters>,
    /// The number of links that have been lost, which is also the number of the current link. All waiters rely on that link.
    generation: u64,
}

struct Waiters {
    count: usize,
    channel: Arc<Channel>,
}

#[derive(Default)]
pub(crate) struct Channel {
    changed: Arc<Notify>,
    /// The server's answer to the subscription.
    confirmed: SetOnce<RedisResult<()>>,
}

impl Channel {
    /// Sets the result of the subscription. Only the first call counts.
    pub(crate) fn confirm(&self, said: RedisResult<()>) {
        let _ = self.confirmed.set(said);
    }
}

/// An order to the subscriber, about one channel. Orders are sent under the lock of the channels, so their order is the order
/// of the changes that caused them.
pub(crate) struct Order {
    pub(crate) name: String,
    /// The channel to subscribe to; `None` to unsubscribe.
    pub(crate) joins: Option<Arc<Channel>>,
    /// Whether the server has ended the subscription.
    pub(crate) has_ended: bool,
    /// Whether the subscription may exist all the same, because the client may have subscribed at the new node by itself.
    pub(crate) is_doubtful: bool,
}

impl Subscriptions {
    /// Starts the task that owns the link. The task connects when the first request waits, and ends when `self` and all
    /// waiters are dropped.
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

    /// Whether the task that owns the link is running.
    pub(crate) fn can_be_joined(&self) -> bool {
        !self.orders.is_closed()
    }

    /// Wakes all waiters, so that they look again and subscribe over another link.
    pub(crate) fn lose(&self) {
        let generation = self.channels.generation();
        self.channels.lose(generation);
    }

    /// Subscribes to `channel`. A message that is sent after this call has resolved is not missed.
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

    /// Adds a waiter to a channel, whose subscription may not be confirmed yet.
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
        // No panic leaves the state half-changed, so a poisoned lock is sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the link that the current waiters rely on.
    pub(crate) fn generation(&self) -> u64 {
        self.lock().generation
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().waiters.is_empty()
    }

    /// Decides what to do about `orders`, if the link is still that of this `generation`; otherwise returns the orders.
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
                // These waiters rely on a subscription that has ended since it was confirmed.
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
                    // The waiters were woken because a link was lost, or are gone.
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

    /// Declares the link of this `generation` lost, and wakes all waiters: none of its subscriptions is left.
    pub(crate) fn lose(&self, generation: u64) {
        let mut state = self.lock();
        if state.generation == generation {
            state.generation += 1;
            for (_, waiters) in state.waiters.drain() {
                waiters.channel.changed.notify_waiters();
            }
        }
    }

    /// Handles a push message on the link of this `generation`: from the server, or from the client about its connection.
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
            // A cluster ends a subscription when its slot moves to another node. The waiters subscribe at that node.
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
        // If the subscription is not confirmed yet, the message is about an earlier one, which all its waiters have left.
        let is_confirmed = |waiters: &Waiters| matches!(waiters.channel.confirmed.get(), Some(Ok(())));
        let is_doubtful = state.waiters.get(&name).is_some_and(is_confirmed);
        if is_doubtful && let Some(waiters) = state.waiters.remove(&name) {
            waiters.channel.changed.notify_waiters();
        }
        // Also if there are no waiters: a later waiter must not rely on the ended subscription.
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

/// The channels of some orders, by what is to be done about them.
#[derive(Default)]
pub(crate) struct Settled {
    /// The channels that have waiters.
    pub(crate) wanted: Vec<(String, Arc<Channel>)>,
    /// The channels that have no waiters any more.
    pub(crate) unwanted: HashSet<String>,
    /// The channels whose subscriptions the server has ended.
    pub(crate) ended: HashSet<String>,
    /// The channels of `ended` whose subscriptions may exist all the same.
    pub(crate) doubtful: HashSet<String>,
}

/// Counts one waiter of a channel.
struct Subscription {
    name: String,
    channel: Arc<Channel>,
    channels: Arc<Channels>,
    orders: mpsc::UnboundedSender<Order>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.channels.lock();
        // After a link was lost, there may be no channel of that name, or a newer one.
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
