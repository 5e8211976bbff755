//! The task that subscribes and unsubscribes as waiters come and go.
//!
//! Owns the [`Link`] that messages arrive over, and the set of channels that are subscribed on it. The task takes all queued
//! orders at once and subscribes only to channels that have waiters by then. A waiter that has come and gone meanwhile costs
//! no command. If the link fails, or stops answering while requests wait, it is dropped with all its subscriptions, so that
//! no subscription is left behind on a server. Does not own the waiters: [`subscriptions`](crate::subscriptions).

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join;
use redis::aio::SendError;
use redis::{PushInfo, RedisResult};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::client::RedisClient;
use crate::error::too_early;
use crate::link::Link;
use crate::pace::Pace;
use crate::subscriptions::{Channels, Order};

/// The most orders that are carried out together.
const BATCH: usize = 1024;

/// How often the link is checked by `PING` while requests wait.
const EVERY: Duration = Duration::from_secs(5);

/// Carries out orders until every sender is dropped.
pub(crate) async fn run(
    client: RedisClient,
    orders: mpsc::UnboundedReceiver<Order>,
    sender: mpsc::WeakUnboundedSender<Order>,
    channels: Weak<Channels>,
) {
    let mut subscriber = Subscriber {
        client,
        orders,
        joined: HashSet::new(),
        pace: Pace::default(),
        sender,
        channels,
        link: None,
        has_unwanted_channel: false,
        sign_due: Instant::now() + EVERY,
    };
    while let Some(batch) = subscriber.next().await {
        subscriber.settle(batch).await;
    }
}

struct Subscriber {
    client: RedisClient,
    orders: mpsc::UnboundedReceiver<Order>,
    /// The channels that are subscribed on the link.
    joined: HashSet<String>,
    pace: Pace,
    sender: mpsc::WeakUnboundedSender<Order>,
    channels: Weak<Channels>,
    link: Option<(u64, Link)>,
    /// Whether unsubscribing has failed on a client that subscribes again by itself, for example because the channel's node
    /// does not answer. The client would restore the subscription, so such a link is replaced.
    has_unwanted_channel: bool,
    sign_due: Instant,
}

impl Subscriber {
    /// The next orders, up to [`BATCH`].
    async fn next(&mut self) -> Option<Vec<Order>> {
        let first = loop {
            if !self.is_relied_on() {
                let first = self.orders.recv().await?;
                self.sign_due = Instant::now() + EVERY;
                break first;
            }
            if self.sign_due <= Instant::now() {
                self.ask_for_a_sign().await;
            }
            // The link is checked in time, whether or not orders arrive.
            if let Ok(first) = timeout_at(self.sign_due, self.orders.recv()).await {
                break first?;
            }
        };
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(order) = self.orders.try_recv()
        {
            batch.push(order);
        }
        Some(batch)
    }

    fn is_relied_on(&self) -> bool {
        let somebody_waits = || self.channels.upgrade().is_some_and(|channels| !channels.is_empty());
        self.link.is_some() && (self.has_unwanted_channel || somebody_waits())
    }

    /// Subscribes to the channels that have waiters, and unsubscribes from those that have none.
    async fn settle(&mut self, mut orders: Vec<Order>) {
        let Some(channels) = self.channels.upgrade() else {
            return;
        };
        let settled = loop {
            self.drop_lost_link();
            let is_joined = orders.iter().any(|order| order.joins.is_some());
            if self.link.is_none() && !is_joined {
                // Without a link there is no subscription to end.
                return;
            }
            let generation = match self.open(&channels).await {
                Ok(generation) => generation,
                Err(error) => return self.refuse(orders, &error),
            };
            match channels.settle(generation, orders) {
                Ok(settled) => break settled,
                Err(again) => orders = again,
            }
        };
        for name in &settled.ended {
            self.joined.remove(name);
        }
        let (known, wanted): (Vec<_>, Vec<_>) = settled
            .wanted
            .into_iter()
            .partition(|(name, _)| self.joined.contains(name));
        for (_, channel) in known {
            channel.confirm(Ok(()));
        }
        let is_left = |name: &String| self.joined.contains(name) || settled.doubtful.contains(name);
        let left: Vec<_> = settled.unwanted.into_iter().filter(is_left).collect();
        let Some((_, link)) = &mut self.link else { return };
        let names: Vec<_> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        let left_names: Vec<_> = left.iter().map(String::as_str).collect();
        let (joined, has_left) = subscribe_and_unsubscribe(link, &names, &left_names).await;
        for name in &left {
            self.joined.remove(name);
        }
        // First, because `note` may drop the link and all its subscriptions.
        for ((name, _), _) in wanted.iter().zip(&joined).filter(|(_, said)| said.is_ok()) {
            self.joined.insert(name.clone());
        }
        for ((_, channel), said) in wanted.into_iter().zip(joined) {
            self.note(&said);
            channel.confirm(said);
        }
        for said in has_left {
            self.has_left(&said);
        }
    }

    fn has_left(&mut self, said: &RedisResult<()>) {
        if let Err(error) = said {
            tracing::debug!(
                error = error as &dyn std::error::Error,
                "unsubscribing from a record failed"
            );
            self.has_unwanted_channel = self.client.subscribes_by_itself();
        }
        self.note(said);
    }

    /// The generation of the link. Opens the link if there is none.
    async fn open(&mut self, channels: &Arc<Channels>) -> RedisResult<u64> {
        self.drop_lost_link();
        if let Some((generation, _)) = self.link {
            return Ok(generation);
        }
        if !self.pace.begin(std::time::Instant::now()) {
            return Err(too_early());
        }
        let generation = channels.generation();
        let (channels, sender) = (self.channels.clone(), self.sender.clone());
        let receive = move |info: PushInfo| {
            let channels = channels.upgrade().ok_or(SendError)?;
            channels.receive(generation, &info, &sender);
            Ok::<_, SendError>(())
        };
        self.link = Some((generation, self.client.open(Some(Arc::new(receive))).await?));
        Ok(generation)
    }

    /// Fails these orders and all queued ones: without a link, each would wait as long as these have.
    fn refuse(&mut self, orders: Vec<Order>, error: &redis::RedisError) {
        let mut orders = orders;
        while let Ok(order) = self.orders.try_recv() {
            orders.push(order);
        }
        for channel in orders.into_iter().filter_map(|order| order.joins) {
            channel.confirm(Err(error.clone()));
        }
    }

    /// Checks whether the link still answers, and drops it if it has a channel that could not be left.
    async fn ask_for_a_sign(&mut self) {
        self.sign_due = Instant::now() + EVERY;
        self.drop_lost_link();
        let Some((_, link)) = &mut self.link else { return };
        if self.has_unwanted_channel {
            return self.lose();
        }
        let said = link.ping().await;
        self.note(&said);
    }

    /// Drops the link if an answer says that it is of no use any more.
    fn note(&mut self, said: &RedisResult<()>) {
        if let (Err(error), Some((_, link))) = (said, &self.link)
            && (link.is_ended_by(error) || link.is_made_doubtful_by(error))
        {
            tracing::debug!(
                error = error as &dyn std::error::Error,
                "the connection that waiters rely on has failed; they look again and subscribe anew"
            );
            self.lose();
        }
    }

    fn lose(&mut self) {
        if let (Some((generation, _)), Some(channels)) = (&self.link, self.channels.upgrade()) {
            channels.lose(*generation);
        }
        self.drop_lost_link();
    }

    /// Drops the link and its subscriptions, if the link was declared lost here or elsewhere.
    fn drop_lost_link(&mut self) {
        let current = self.channels.upgrade().map(|channels| channels.generation());
        if self
            .link
            .as_ref()
            .is_some_and(|(generation, _)| Some(*generation) != current)
        {
            self.link = None;
            self.joined.clear();
            self.has_unwanted_channel = false;
        }
    }
}

/// Subscribes and unsubscribes at the same time. For an empty list, no command is sent.
async fn subscribe_and_unsubscribe(
    link: &mut Link,
    joined: &[&str],
    left: &[&str],
) -> (Vec<RedisResult<()>>, Vec<RedisResult<()>>) {
    let mut same_link = link.clone();
    let joining = async {
        if joined.is_empty() {
            Vec::new()
        } else {
            link.subscribe(joined).await
        }
    };
    let leaving = async {
        if left.is_empty() {
            Vec::new()
        } else {
            same_link.unsubscribe(left).await
        }
    };
    join(joining, leaving).await
}
