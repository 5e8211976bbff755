//! Streams, subjects and consumers in `JetStream`.
//!
//! Owns their names and settings, and publishing. Does not own what is done with a message.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context, stream};
use async_nats::{Client, Error};

use crate::ship::{self, Order};

/// The stream of orders, and its subject.
const ORDERS: &str = "orders";
const PLACED: &str = "orders.placed";

/// The stream of messages that were set aside, and its subject. It is none of the orders' subjects, so no consumer gets them again.
const ASIDE: &str = "aside";
const SET_ASIDE: &str = "aside.orders";

/// For how long the stream of orders keeps a message. A result is kept for longer, so that a replay finds every result.
const KEPT: Duration = Duration::from_hours(6 * 24);
const _: () = assert!(KEPT.as_secs() < ship::TTL.as_secs());

/// For how long the broker knows the id of a message that was set aside, so that the same one is there once: as long as the task knows
/// that it has failed.
const KNOWN: Duration = ship::TTL;

/// The headers of a message that was set aside.
const REASON: &str = "Fulfilment-Reason";
const SEQUENCE: &str = "Fulfilment-Sequence";

/// A connection to the broker. Clones share it.
#[derive(Clone, Debug)]
pub struct Broker {
    client: Client,
    context: Context,
}

/// How far a consumer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How many deliveries there were, repeated ones included.
    pub deliveries: u64,
    /// How many messages are left: not delivered yet, or not acknowledged.
    pub left: u64,
}

impl Broker {
    /// Connects.
    ///
    /// # Errors
    ///
    /// If nobody answers there.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        let client = async_nats::connect(url).await?;
        let context = jetstream::new(client.clone());
        Ok(Self { client, context })
    }

    /// Creates the streams.
    ///
    /// # Errors
    ///
    /// If the broker has no `JetStream`, or streams of these names that are different.
    pub async fn create_streams(&self) -> Result<(), Error> {
        let orders = stream::Config {
            name: ORDERS.to_owned(),
            subjects: vec!["orders.>".to_owned()],
            max_age: KEPT,
            ..stream::Config::default()
        };
        let aside = stream::Config {
            name: ASIDE.to_owned(),
            subjects: vec!["aside.>".to_owned()],
            duplicate_window: KNOWN,
            ..stream::Config::default()
        };
        self.context.create_stream(orders).await?;
        self.context.create_stream(aside).await?;
        Ok(())
    }

    /// Creates a durable consumer that begins with the first message of the stream. A message that is not acknowledged within
    /// `ack_wait` is delivered again.
    ///
    /// # Errors
    ///
    /// If there is a consumer of this name that is different.
    pub async fn create_consumer(&self, name: &str, ack_wait: Duration) -> Result<(), Error> {
        let config = pull::Config {
            durable_name: Some(name.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait,
            ..pull::Config::default()
        };
        self.context.create_consumer_on_stream(config, ORDERS).await?;
        Ok(())
    }

    /// A consumer that was created.
    ///
    /// # Errors
    ///
    /// If there is none of this name.
    pub async fn consumer(&self, name: &str) -> Result<PullConsumer, Error> {
        Ok(self.context.get_consumer_from_stream(name, ORDERS).await?)
    }

    /// How far a consumer is.
    ///
    /// # Errors
    ///
    /// If the broker does not answer, or there is no consumer of this name.
    pub async fn progress(&self, name: &str) -> Result<Progress, Error> {
        let info = self.consumer(name).await?;
        let info = info.cached_info();
        Ok(Progress {
            deliveries: info.delivered.consumer_sequence,
            left: info.num_pending + info.num_ack_pending as u64,
        })
    }

    /// Publishes an order, and waits until the stream has it.
    ///
    /// # Errors
    ///
    /// If the stream has not confirmed it.
    pub async fn place(&self, order: &Order) -> Result<(), Error> {
        self.publish(serde_json::to_vec(order)?).await
    }

    /// Publishes bytes that need not be an order.
    ///
    /// # Errors
    ///
    /// If the stream has not confirmed them.
    pub async fn publish(&self, bytes: Vec<u8>) -> Result<(), Error> {
        self.context.publish(PLACED, bytes.into()).await?.await?;
        Ok(())
    }

    /// Puts a message aside, with the reason, and waits until it is there. The same message is there once, however often it is put
    /// aside: its place in the stream of orders is its id.
    ///
    /// # Errors
    ///
    /// If the broker has not confirmed it.
    pub async fn set_aside(&self, message: &jetstream::Message, sequence: u64, reason: &str) -> Result<(), Error> {
        // A header with a line break would panic.
        let reason = reason.replace(['\r', '\n'], " ");
        let copy = PublishMessage::build()
            .payload(message.payload.clone())
            .message_id(format!("{ORDERS}-{sequence}"))
            .header(SEQUENCE, sequence.to_string())
            .header(REASON, reason);
        self.context.send_publish(SET_ASIDE, copy).await?.await?;
        Ok(())
    }

    /// The messages that were set aside: the place in the stream of orders, and the reason.
    ///
    /// # Errors
    ///
    /// If the broker does not answer.
    pub async fn aside(&self) -> Result<Vec<(u64, String)>, Error> {
        let stream = self.context.get_stream(ASIDE).await?;
        let state = &stream.cached_info().state;
        let mut aside = Vec::new();
        for sequence in state.first_sequence.max(1)..=state.last_sequence {
            let message = stream.get_raw_message(sequence).await?;
            let header = |name| message.headers.get(name).map(|value| value.as_str().to_owned());
            let place = header(SEQUENCE).and_then(|sequence| sequence.parse().ok());
            aside.push((place.unwrap_or_default(), header(REASON).unwrap_or_default()));
        }
        Ok(aside)
    }

    /// Waits until everything that was sent is with the broker.
    ///
    /// # Errors
    ///
    /// If the connection is gone.
    pub async fn flush(&self) -> Result<(), Error> {
        Ok(self.client.flush().await?)
    }
}
