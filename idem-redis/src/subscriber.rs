//! The link that messages come over: subscribing and leaving, as waiters come and go.
//!
//! Owns a [`Link`] of its own and the order in which channels are joined and left. A link that fails, or falls silent
//! while somebody waits, is dropped with all its subscriptions, so that none is left behind on a server.

use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::SendError;
use redis::{PushInfo, RedisResult};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::client::RedisClient;
use crate::link::Link;
use crate::subscriptions::{Channels, Order};

/// How many orders are carried out at once.
const BATCH: usize = 256;

/// How often a link that somebody waits on is asked for a sign of life.
const EVERY: Duration = Duration::from_secs(5);

/// Carries out orders until nobody can give any more.
pub(crate) async fn run(
    client: RedisClient,
    orders: mpsc::UnboundedReceiver<Order>,
    sender: mpsc::WeakUnboundedSender<Order>,
    channels: Weak<Channels>,
) {
    let mut subscriber = Subscriber {
        client,
        orders,
        held_back: None,
        sender,
        channels,
        link: None,
        is_littered: false,
        sign_due: Instant::now() + EVERY,
    };
    while let Some(batch) = subscriber.next().await {
        if batch.first().is_some_and(|order| order.joins.is_some()) {
            subscriber.subscribe(batch).await;
        } else {
            subscriber.leave(batch).await;
        }
    }
}

struct Subscriber {
    client: RedisClient,
    orders: mpsc::UnboundedReceiver<Order>,
    /// The first order that did not fit into the last batch.
    held_back: Option<Order>,
    sender: mpsc::WeakUnboundedSender<Order>,
    channels: Weak<Channels>,
    link: Option<(u64, Link)>,
    /// Whether a channel could not be left over a client that subscribes by itself, as where its node of a cluster cannot
    /// be asked. The client would join it again, so such a link is replaced.
    is_littered: bool,
    sign_due: Instant,
}

impl Subscriber {
    /// The next orders, as many as are alike.
    async fn next(&mut self) -> Option<Vec<Order>> {
        let first = loop {
            if let Some(first) = self.held_back.take() {
                break first;
            }
            if !self.is_relied_on() {
                let first = self.orders.recv().await?;
                self.sign_due = Instant::now() + EVERY;
                break first;
            }
            if self.sign_due <= Instant::now() {
                self.ask_for_a_sign().await;
            }
            // In between, whether orders come or not, the link is looked after.
            if let Ok(first) = timeout_at(self.sign_due, self.orders.recv()).await {
                break first?;
            }
        };
        let mut batch = vec![first];
        while batch.len() < BATCH {
            match self.orders.try_recv() {
                Ok(order) if order.joins.is_some() == batch[0].joins.is_some() => batch.push(order),
                other => {
                    self.held_back = other.ok();
                    break;
                }
            }
        }
        Some(batch)
    }

    fn is_relied_on(&self) -> bool {
        let somebody_waits = || self.channels.upgrade().is_some_and(|channels| !channels.is_empty());
        self.link.is_some() && (self.is_littered || somebody_waits())
    }

    async fn subscribe(&mut self, mut orders: Vec<Order>) {
        let Some(channels) = self.channels.upgrade() else {
            return;
        };
        let wanted = loop {
            let generation = match self.open(&channels).await {
                Ok(generation) => generation,
                Err(error) => return self.refuse(orders, &error),
            };
            match channels.wanted(generation, orders) {
                Ok(wanted) => break wanted,
                Err(again) => orders = again,
            }
        };
        let Some((_, link)) = &mut self.link else { return };
        let names: Vec<_> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        let said = link.subscribe(&names).await;
        for ((_, channel), said) in wanted.into_iter().zip(said) {
            self.note(&said);
            channel.confirm(said);
        }
    }

    async fn leave(&mut self, orders: Vec<Order>) {
        self.drop_lost_link();
        // Without a link there is no subscription either.
        let Some((_, link)) = &mut self.link else { return };
        let names: Vec<_> = orders.iter().map(|order| order.name.as_str()).collect();
        for said in link.unsubscribe(&names).await {
            if let Err(error) = &said {
                tracing::debug!(
                    error = error as &dyn std::error::Error,
                    "unsubscribing from a record failed"
                );
                self.is_littered = self.client.subscribes_by_itself();
            }
            self.note(&said);
        }
    }

    /// The generation of the link, which is opened where there is none.
    async fn open(&mut self, channels: &Arc<Channels>) -> RedisResult<u64> {
        self.drop_lost_link();
        if let Some((generation, _)) = self.link {
            return Ok(generation);
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

    /// Fails these orders and all behind them: without a link, each would wait as long as the one before.
    fn refuse(&mut self, orders: Vec<Order>, error: &redis::RedisError) {
        let mut orders: Vec<_> = orders.into_iter().chain(self.held_back.take()).collect();
        while let Ok(order) = self.orders.try_recv() {
            orders.push(order);
        }
        for channel in orders.into_iter().filter_map(|order| order.joins) {
            channel.confirm(Err(error.clone()));
        }
    }

    /// Finds out whether the link is still there, and as it should be.
    async fn ask_for_a_sign(&mut self) {
        self.sign_due = Instant::now() + EVERY;
        self.drop_lost_link();
        let Some((_, link)) = &mut self.link else { return };
        if self.is_littered {
            return self.lose();
        }
        let said = link.ping().await;
        self.note(&said);
    }

    /// Gives the link up if that is what an answer means.
    fn note(&mut self, said: &RedisResult<()>) {
        if let (Err(error), Some((_, link))) = (said, &self.link)
            && link.is_ended_by(error)
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

    /// Drops a link that was found to be lost, here or elsewhere, and its subscriptions with it.
    fn drop_lost_link(&mut self) {
        let current = self.channels.upgrade().map(|channels| channels.generation());
        if self
            .link
            .as_ref()
            .is_some_and(|(generation, _)| Some(*generation) != current)
        {
            self.link = None;
            self.is_littered = false;
        }
    }
}
