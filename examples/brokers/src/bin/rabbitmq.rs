//! Ships the orders of a RabbitMQ queue: `rabbitmq <URL of the broker>`.
//!
//! `REDIS_URL` has the records, `BOOK` is the carrier's book.

use std::env;
use std::error::Error;
use std::time::Duration;

use consumers::{Carrier, Order, Parcel, ShipError};
use futures_util::StreamExt as _;
use idem_task::{Engine, RedisBackend, TaskExt as _, Verdict, verdict};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

const QUEUE: &str = "orders";
/// For people to look at.
const ASIDE: &str = "orders-aside";
const TAG: &str = "shipper";
/// Longer than a message stays in the queue and among the dead letters, from where people may move it back.
const TTL: Duration = Duration::from_hours(14 * 24);
const LEASE: Duration = Duration::from_secs(10);
/// Shorter than the 30 minutes after which the broker closes the channel of a consumer that does not acknowledge.
const MAX_RUN: Duration = Duration::from_mins(20);
/// How many messages this consumer has at a time.
const AT_ONCE: u16 = 16;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let url = env::args().nth(1).ok_or("usage: rabbitmq <URL of the broker>")?;
    let shipper = Shipper {
        engine: Engine::new(RedisBackend::connect(&env::var("REDIS_URL")?).await?),
        carrier: Carrier::new(env::var("BOOK")?),
    };
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    declare(&channel).await?;
    channel.basic_qos(AT_ONCE, BasicQosOptions::default()).await?;
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut deliveries = channel
        .basic_consume(QUEUE.into(), TAG.into(), options, arguments)
        .await?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            delivery = deliveries.next() => match delivery {
                Some(delivery) => _ = running.spawn(shipper.clone().handle(delivery?)),
                None => return Err("the broker has ended the consumer".into()),
            },
            Some(handled) = running.join_next() => handled??,
            _ = terminated.recv() => break,
        }
    }
    channel.basic_cancel(TAG.into(), BasicCancelOptions::default()).await?;
    while let Some(handled) = running.join_next().await {
        handled??;
    }
    shipper.engine.drain().await;
    // The broker delivers again what was not acknowledged.
    Ok(connection.close(200, "the end".into()).await?)
}

/// The queue, and the one that gets its dead letters.
async fn declare(channel: &Channel) -> lapin::Result<()> {
    let durable = QueueDeclareOptions::durable();
    channel
        .queue_declare(ASIDE.into(), durable, FieldTable::default())
        .await?;
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(20));
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text(ASIDE));
    channel.queue_declare(QUEUE.into(), durable, arguments).await?;
    Ok(())
}

#[derive(Clone)]
struct Shipper {
    engine: Engine,
    carrier: Carrier,
}

impl Shipper {
    async fn handle(self, delivery: Delivery) -> lapin::Result<()> {
        let parcel = self.ship(&delivery.data).await;
        let requeue = match verdict(&parcel) {
            Verdict::Acknowledge => {
                delivery.ack(BasicAckOptions::default()).await?;
                return Ok(());
            }
            // The broker has no delay, and would deliver it again at once.
            Verdict::Redeliver(after) => {
                tokio::time::sleep(after).await;
                true
            }
            // A dead letter.
            Verdict::SetAside => false,
        };
        if let Err(error) = parcel {
            tracing::warn!(%error, requeue, "an order is not shipped");
        }
        let multiple = false;
        delivery.nack(BasicNackOptions { multiple, requeue }).await?;
        Ok(())
    }

    async fn ship(self, payload: &[u8]) -> Result<Parcel, ShipError> {
        let order: Order = serde_json::from_slice(payload)?;
        let task = self.engine.task("ship").scope(QUEUE).key(&order.id).ttl(TTL);
        let task = task.lease(LEASE).max_run(MAX_RUN).max_attempts(3).compare(&order);
        task.run(|_| self.carrier.ship(order)).await
    }
}
