//! Ships the orders of an SQS queue: the handler of a Lambda function with `ReportBatchItemFailures`.
//!
//! Reads an event from each line of its standard input, and prints the answer to it. In a function, `lambda_runtime::run` does that,
//! and calls [`Function::handle`]. `REDIS_URL` has the records, `BOOK` is the carrier's book.

use std::env;
use std::error::Error;
use std::io::stdin;
use std::time::Duration;

use consumers::{Carrier, Order, Parcel, ShipError};
use idem_task::{Batch, Engine, RedisBackend, TaskExt as _, Verdict};
use serde::{Deserialize, Serialize};

/// Twice the longest retention of a queue: a message is kept by the queue, and then by its dead-letter queue.
const TTL: Duration = Duration::from_hours(28 * 24);
/// Shorter than the visibility timeout, so that a message whose function was stopped can run when it is delivered again.
const LEASE: Duration = Duration::from_secs(10);
/// Shorter than the function's timeout.
const WAIT: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    records: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "messageId")]
    id: String,
    body: String,
    attributes: Attributes,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attributes {
    /// On FIFO queues.
    message_group_id: Option<String>,
}

/// Names the messages that SQS delivers again. Lambda deletes all others.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    batch_item_failures: Vec<Failure>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    item_identifier: String,
}

/// Lives as long as the function's instance.
struct Function {
    engine: Engine,
    carrier: Carrier,
}

impl Function {
    async fn handle(&self, event: Event) -> Answer {
        // On a standard queue, each message is a group of its own.
        let group = |message: &&Message| {
            let group = message.attributes.message_group_id.as_ref();
            group.unwrap_or(&message.id).clone()
        };
        let batch = Batch::of(&event.records).in_order_of(group);
        let verdicts = batch.run(|message| self.ship(message)).await;
        let failed = event.records.iter().zip(verdicts).filter(|(_, verdict)| match verdict {
            Verdict::Acknowledge => false,
            // After `maxReceiveCount` deliveries, the queue moves the message to its dead-letter queue. No delivery of a message that
            // is to be set aside runs it again.
            Verdict::Redeliver(_) | Verdict::SetAside => true,
        });
        let batch_item_failures = failed.map(|(message, _)| Failure {
            item_identifier: message.id.clone(),
        });
        Answer {
            batch_item_failures: batch_item_failures.collect(),
        }
    }

    async fn ship(&self, message: &Message) -> Result<Parcel, ShipError> {
        let order: Order = serde_json::from_str(&message.body)?;
        let task = self.engine.task("ship").scope("orders").key(&order.id).ttl(TTL);
        let task = task.lease(LEASE).wait(WAIT).max_attempts(3).compare(&order);
        let carrier = self.carrier.clone();
        let parcel = task.run(|_| carrier.ship(order)).await;
        if let Err(error) = &parcel {
            tracing::warn!(message = message.id, %error, "an order is not shipped");
        }
        parcel
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let function = Function {
        engine: Engine::new(RedisBackend::connect(&env::var("REDIS_URL")?).await?),
        carrier: Carrier::new(env::var("BOOK")?),
    };
    for event in stdin().lines() {
        let answer = function.handle(serde_json::from_str(&event?)?).await;
        println!("{}", serde_json::to_string(&answer)?);
    }
    Ok(())
}
