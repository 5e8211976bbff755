//! A consumer of the stream: from a message to the task, and from the task's verdict to the broker.
//!
//! Owns the pulling, the words in which the broker is told a verdict, and what the process says on its stdout. Does not own what the
//! task does: [`ship`](crate::ship).

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{AckKind, Message};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use idem_task::{Engine, RedisBackend, SqliteBackend, Verdict, verdict};
use tokio::time::sleep;

use crate::broker::Broker;
use crate::config::{Config, Records};
use crate::journal::{Event, What};
use crate::ship::{Order, Shipping};

/// How long the broker keeps a request for a message. A process that is told to stop waits for it.
const PULL: Duration = Duration::from_secs(1);

/// How much later a message is tried again that could not be put aside.
const RETRY: Duration = Duration::from_secs(1);

/// Why the process cannot consume.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The records cannot be used.
    #[error("the records cannot be used")]
    Records(#[source] Box<dyn Error + Send + Sync>),
    /// The broker cannot be used.
    #[error("the broker cannot be used")]
    Broker(#[from] async_nats::Error),
    /// The broker would deliver a message again while it is worked on, before the first renewal of its lease tells the broker.
    #[error("the consumer's ack wait of {} ms is not longer than a third of the lease", .0.as_millis())]
    AckWait(Duration),
}

/// Consumes until `stop` resolves, and then until every message that it has taken is done.
///
/// # Errors
///
/// If it cannot begin.
pub async fn consume(config: Config, stop: impl Future<Output = ()>) -> Result<(), ConsumeError> {
    let engine = engine(&config.records).await.map_err(ConsumeError::Records)?;
    let broker = Broker::connect(&config.nats_url).await?;
    let messages = broker.consumer(&config.consumer).await?;
    let ack_wait = messages.cached_info().config.ack_wait;
    if ack_wait <= config.lease / 3 {
        return Err(ConsumeError::AckWait(ack_wait));
    }
    let consumer = Consumer {
        broker: broker.clone(),
        shipping: Shipping {
            engine: engine.clone(),
            carrier: config.carrier,
            packing: config.packing,
            lease: config.lease,
        },
        lose_acks: config.lose_acks,
        is_stopped: AtomicBool::new(false),
    };
    let lanes = join_all((0..config.at_once).map(|_| consumer.lane(&messages)));
    let stopping = async {
        stop.await;
        consumer.is_stopped.store(true, Ordering::Relaxed);
    };
    tokio::join!(lanes, stopping);
    engine.drain().await;
    Ok(broker.flush().await?)
}

async fn engine(records: &Records) -> Result<Engine, Box<dyn Error + Send + Sync>> {
    Ok(match records {
        Records::Sqlite(file) => Engine::new(SqliteBackend::open(file).await?),
        Records::Redis(url) => Engine::new(RedisBackend::connect(url).await?),
    })
}

struct Consumer {
    broker: Broker,
    shipping: Shipping,
    lose_acks: u64,
    is_stopped: AtomicBool,
}

impl Consumer {
    /// Takes one message after the other. A lane asks for a message when it can work on it: one that waited in this process would be
    /// delivered again meanwhile, because only a running task tells the broker that it is worked on.
    async fn lane(&self, messages: &PullConsumer) {
        while !self.is_stopped.load(Ordering::Relaxed) {
            if let Err(error) = self.next(messages).await {
                // The client connects again by itself.
                tracing::warn!(error = &*error as &dyn Error, "no message can be taken");
                sleep(RETRY).await;
            }
        }
    }

    async fn next(&self, messages: &PullConsumer) -> Result<(), async_nats::Error> {
        let mut pulled = messages.batch().max_messages(1).expires(PULL).messages().await?;
        while let Some(message) = pulled.next().await {
            self.take(&message?).await?;
        }
        Ok(())
    }

    async fn take(&self, message: &Message) -> Result<(), async_nats::Error> {
        let info = message.info()?;
        let sequence = info.stream_sequence;
        let say = |what| {
            let delivery = u64::try_from(info.delivered).unwrap_or_default();
            say(Event {
                what,
                sequence,
                delivery,
            });
        };
        say(What::Began);
        let (verdict, reason) = self.work(message).await;
        say(What::Ended(verdict.into()));
        if self.lose_acks > 0 && rand::random_range(0..self.lose_acks) == 0 {
            return Ok(());
        }
        self.tell(message, sequence, verdict, &reason).await?;
        say(What::Told);
        Ok(())
    }

    /// Ships the order, and says why not.
    async fn work(&self, message: &Message) -> (Verdict, String) {
        let order: Order = match serde_json::from_slice(&message.payload) {
            Ok(order) => order,
            Err(error) => return (Verdict::SetAside, format!("it is not an order: {error}")),
        };
        let result = self.shipping.ship(order, progress(message)).await;
        let reason = result.as_ref().err().map(|error| with_causes(error));
        (verdict(&result), reason.unwrap_or_default())
    }

    async fn tell(
        &self,
        message: &Message,
        sequence: u64,
        verdict: Verdict,
        reason: &str,
    ) -> Result<(), async_nats::Error> {
        let kind = match verdict {
            Verdict::Acknowledge => AckKind::Ack,
            Verdict::Redeliver(after) => AckKind::Nak(Some(after)),
            // First the copy, then the end: a process that dies between the two puts it aside again, and loses nothing.
            Verdict::SetAside => match self.broker.set_aside(message, sequence, reason).await {
                Ok(()) => AckKind::Term,
                Err(error) => {
                    tracing::warn!(error = &*error as &dyn Error, sequence, "it cannot be put aside");
                    AckKind::Nak(Some(RETRY))
                }
            },
        };
        // Confirmed, so that what this process says of it is true.
        message.double_ack_with(kind).await
    }
}

/// Tells the broker that the message is still worked on.
fn progress(message: &Message) -> impl Fn() + Send + Sync + 'static {
    let message = message.clone();
    move || {
        let message = message.clone();
        tokio::spawn(async move {
            if let Err(error) = message.ack_with(AckKind::Progress).await {
                tracing::warn!(
                    error = &*error as &dyn Error,
                    "it may be delivered again while it is worked on"
                );
            }
        });
    }
}

/// An error in one line, with its causes.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Nobody may be reading, which is no reason not to go on.
fn say(event: impl fmt::Display) {
    let _ = writeln!(io::stdout(), "{event}");
}
