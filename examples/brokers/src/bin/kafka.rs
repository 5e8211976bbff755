//! Ships the orders of a Kafka topic, each partition in order: `kafka <brokers>`.
//!
//! `REDIS_URL` has the records, `BOOK` is the carrier's book.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use consumers::{Carrier, Order, Parcel, ShipError};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use idem_task::{Batch, Engine, RedisBackend, TaskExt as _, Verdict};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::KafkaResult;
use rdkafka::message::{BorrowedMessage, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

const TOPIC: &str = "orders";
/// For people to look at.
const ASIDE: &str = "orders-aside";
/// Longer than the topic's retention, 7 days by default, and than any replay of it.
const TTL: Duration = Duration::from_hours(14 * 24);
/// A partition whose consumer died waits for so long.
const LEASE: Duration = Duration::from_secs(5);
const MOST: usize = 100;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let consumer = Consumer::connect(&env::args().nth(1).ok_or("usage: kafka <brokers>")?).await?;
    let mut terminated = signal(SignalKind::terminate())?;
    let stop = async move { _ = terminated.recv().await };
    consumer.run(stop.boxed().shared()).await?;
    consumer.engine.drain().await;
    Ok(())
}

/// How often partitions were taken from this consumer. It gives up all of them at once, and those that it gets then begin at their
/// committed offsets.
struct Revocations(watch::Sender<u64>);

impl ClientContext for Revocations {}

impl ConsumerContext for Revocations {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(_) = rebalance {
            self.0.send_modify(|count| *count += 1);
            tracing::info!("the partitions are revoked");
        }
    }
}

/// A message, and how often partitions had been revoked when it was received. It is stale after the next revocation.
struct Received(u64, OwnedMessage);

struct Consumer {
    engine: Engine,
    carrier: Carrier,
    kafka: Arc<StreamConsumer<Revocations>>,
    producer: FutureProducer,
}

impl Consumer {
    async fn connect(brokers: &str) -> Result<Self, Box<dyn Error>> {
        let kafka: StreamConsumer<_> = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "shippers")
            .set("auto.offset.reset", "earliest")
            .set("session.timeout.ms", "6000")
            // Offsets are committed after the verdicts, and by nothing else.
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // With `cooperative-sticky`, partitions that stay would not begin at their committed offsets.
            .set("partition.assignment.strategy", "range")
            .create_with_context(Revocations(watch::Sender::default()))?;
        kafka.subscribe(&[TOPIC])?;
        Ok(Self {
            engine: Engine::new(RedisBackend::connect(&env::var("REDIS_URL")?).await?),
            carrier: Carrier::new(env::var("BOOK")?),
            kafka: Arc::new(kafka),
            producer: ClientConfig::new().set("bootstrap.servers", brokers).create()?,
        })
    }

    async fn run(&self, stop: Shared<BoxFuture<'static, ()>>) -> Result<(), Box<dyn Error>> {
        // Messages that arrived while a batch ran.
        let mut ahead: Vec<Received> = Vec::new();
        while stop.clone().now_or_never().is_none() {
            if ahead.is_empty() {
                tokio::select! {
                    message = self.kafka.recv() => ahead.extend(self.received(message)),
                    () = stop.clone() => break,
                }
            }
            while ahead.len() < MOST
                && let Some(message) = self.kafka.recv().now_or_never()
            {
                ahead.extend(self.received(message));
            }
            let now = self.revocations();
            let batch = ahead.drain(..).filter(|Received(at, _)| *at == now);
            let batch: Vec<_> = batch.map(|Received(_, message)| message).collect();
            if batch.is_empty() {
                continue;
            }
            let verdicts = self.handle(&batch, &mut ahead, stop.clone()).await?;
            if self.revocations() == now {
                self.tell(&batch, &verdicts, &mut ahead).await?;
            } else {
                // The next consumer of a partition gets the results of what has run here. That may be this one, and a partition that
                // was paused when it was revoked is still paused.
                for message in &batch {
                    self.resume(message.partition(), Duration::ZERO);
                }
            }
        }
        Ok(())
    }

    /// Runs a batch, and goes on polling, so that the consumer stays a member of its group and learns of a revocation.
    async fn handle(
        &self,
        batch: &[OwnedMessage],
        ahead: &mut Vec<Received>,
        stop: Shared<BoxFuture<'static, ()>>,
    ) -> KafkaResult<Vec<Verdict>> {
        let mut partitions = TopicPartitionList::new();
        for message in batch {
            partitions.add_partition(TOPIC, message.partition());
        }
        self.kafka.pause(&partitions)?;
        let mut revoked = self.kafka.context().0.subscribe();
        let until = async move {
            tokio::select! {
                _ = revoked.changed() => {}
                () = stop => {}
            }
        };
        let batch = Batch::of(batch).in_order_of(|message| message.partition());
        let mut running = pin!(batch.until(until).run(|message| self.ship(message)));
        loop {
            tokio::select! {
                verdicts = &mut running => return Ok(verdicts),
                message = self.kafka.recv() => ahead.extend(self.received(message)),
            }
        }
    }

    async fn ship(&self, message: &OwnedMessage) -> Result<Parcel, ShipError> {
        let order: Order = serde_json::from_slice(message.payload().unwrap_or_default())?;
        let task = self.engine.task("ship").scope(TOPIC).key(&order.id).ttl(TTL);
        let task = task.lease(LEASE).max_attempts(3).compare(&order);
        let carrier = self.carrier.clone();
        task.run(|_| carrier.ship(order)).await
    }

    /// Commits each partition up to its first message that is not done, and goes back to that one.
    async fn tell(
        &self,
        batch: &[OwnedMessage],
        verdicts: &[Verdict],
        ahead: &mut Vec<Received>,
    ) -> Result<(), Box<dyn Error>> {
        let mut partitions: BTreeMap<i32, Vec<_>> = BTreeMap::new();
        for (message, verdict) in batch.iter().zip(verdicts) {
            partitions
                .entry(message.partition())
                .or_default()
                .push((message, verdict));
        }
        let mut done = TopicPartitionList::new();
        for (partition, messages) in partitions {
            let mut wait = Duration::ZERO;
            let mut goes_back_to = None;
            for (message, verdict) in messages {
                match verdict {
                    Verdict::Acknowledge => {}
                    Verdict::SetAside => {
                        self.set_aside(message).await?;
                        goes_back_to = Some(message.offset() + 1);
                    }
                    Verdict::Redeliver(after) => {
                        (wait, goes_back_to) = (*after, Some(message.offset()));
                    }
                }
                let next = goes_back_to.unwrap_or(message.offset() + 1);
                done.set_partition_offset(TOPIC, partition, Offset::Offset(next))
                    .or_else(|_| done.add_partition_offset(TOPIC, partition, Offset::Offset(next)))?;
                if goes_back_to.is_some() {
                    break;
                }
            }
            if let Some(offset) = goes_back_to {
                ahead.retain(|Received(_, message)| message.partition() != partition);
                self.kafka
                    .seek(TOPIC, partition, Offset::Offset(offset), Duration::ZERO)?;
            }
            self.resume(partition, wait);
        }
        // If it fails, the messages are delivered again, and their tasks do not run again.
        Ok(self.kafka.commit(&done, CommitMode::Async)?)
    }

    /// Lets messages of a partition come again, after a while.
    fn resume(&self, partition: i32, wait: Duration) {
        let kafka = self.kafka.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let mut partitions = TopicPartitionList::new();
            partitions.add_partition(TOPIC, partition);
            if let Err(error) = kafka.resume(&partitions) {
                tracing::warn!(%error, partition, "a partition does not go on");
            }
        });
    }

    async fn set_aside(&self, message: &OwnedMessage) -> KafkaResult<()> {
        let record: FutureRecord<'_, [u8], [u8]> =
            FutureRecord::to(ASIDE).payload(message.payload().unwrap_or_default());
        let sent = self.producer.send(record, Duration::from_secs(10)).await;
        sent.map(|_| ()).map_err(|(error, _)| error)
    }

    fn received(&self, message: KafkaResult<BorrowedMessage<'_>>) -> Option<Received> {
        match message {
            Ok(message) => Some(Received(self.revocations(), message.detach())),
            // The client connects again by itself.
            Err(error) => {
                tracing::warn!(%error, "no message");
                None
            }
        }
    }

    fn revocations(&self) -> u64 {
        *self.kafka.context().0.borrow()
    }
}
