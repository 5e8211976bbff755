//! What the tests share: a stage with one consumer, and its processes.

use std::path::PathBuf;
use std::time::Duration;

use fulfilment::config::Config;
use fulfilment::journal::{Entry, What};
use fulfilment::ship::Order;
use fulfilment::stage::Stage;

/// The one consumer of a test.
pub(crate) const CONSUMER: &str = "tested";

/// This program.
pub(crate) fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_fulfilment").into()
}

/// A stage whose consumer has this `ack_wait`.
pub(crate) async fn stage(ack_wait: Duration) -> Stage {
    let stage = Stage::start(program(), None, Duration::ZERO).await.expect("a stage");
    let created = stage.broker.create_consumer(CONSUMER, ack_wait).await;
    created.expect("a consumer");
    stage
}

/// A process that works on one order at a time.
pub(crate) fn one_at_a_time(stage: &Stage) -> Config {
    Config {
        at_once: 1,
        packing: Duration::ZERO,
        ..stage.config(CONSUMER)
    }
}

pub(crate) fn order(id: &str, address: &str) -> Order {
    Order {
        id: id.to_owned(),
        item: "a pump".to_owned(),
        address: address.to_owned(),
    }
}

/// Places an order to an address that exists.
pub(crate) async fn place(stage: &Stage, id: &str) {
    let placed = stage.broker.place(&order(id, "1 Main Street")).await;
    placed.expect("the stream takes it");
}

/// Lets one more process consume until nothing is left.
pub(crate) async fn consume_the_rest(stage: &Stage, consumer: &str) {
    let config = Config {
        consumer: consumer.to_owned(),
        ..one_at_a_time(stage)
    };
    let worker = stage.worker(&config).expect("it starts");
    stage.consumed(consumer).await.expect("nothing is left");
    worker.stop().await.expect("it ends well");
}

/// Whether one of the deliveries came to this.
pub(crate) fn has(entries: &[Entry], what: What) -> bool {
    entries.iter().any(|entry| entry.event.what == what)
}
