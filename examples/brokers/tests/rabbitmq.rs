//! Consumers of one queue. `RABBITMQ_URL` is a broker that runs, whose queues `orders` and `orders-aside` are the test's.

mod shared;

use std::env;
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use shared::{Stage, order, shipped, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_rabbitmq");

struct Broker {
    url: String,
    connection: Connection,
}

impl Broker {
    async fn empty() -> Self {
        let url = env::var("RABBITMQ_URL").expect("RABBITMQ_URL is set");
        let connection = Connection::connect(&url, ConnectionProperties::default()).await;
        let connection = connection.expect("it runs");
        let broker = Self { url, connection };
        for queue in ["orders", "orders-aside"] {
            let deleted = broker
                .channel()
                .await
                .queue_delete(queue.into(), QueueDeleteOptions::default())
                .await;
            deleted.expect("one that is not there is deleted as well");
        }
        broker
    }

    async fn channel(&self) -> Channel {
        self.connection.create_channel().await.expect("it runs")
    }

    /// How many messages wait in a queue; `None` before there is one.
    async fn waiting(&self, queue: &str) -> Option<u32> {
        let mut passive = QueueDeclareOptions::durable();
        passive.passive = true;
        let declared = self
            .channel()
            .await
            .queue_declare(queue.into(), passive, FieldTable::default())
            .await;
        declared.ok().map(|queue| queue.message_count())
    }

    async fn publish(&self, payload: &str) {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let channel = self.channel().await;
        let sent = channel.basic_publish("".into(), "orders".into(), options, payload.as_bytes(), properties);
        sent.await.expect("it runs").await.expect("it is there");
    }
}

async fn until_waiting(broker: &Broker, queue: &str, count: u32) {
    let patience = Instant::now() + Duration::from_mins(1);
    while broker.waiting(queue).await != Some(count) {
        assert!(Instant::now() < patience, "never: {count} in {queue}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_consumer_had_begun_is_shipped_once_by_another() {
    let (stage, broker) = (Stage::start(), Broker::empty().await);
    let (killed, log) = stage.consumer(PROGRAM, &broker.url, &stage.closed_book("closed"));
    std::thread::spawn(move || log.for_each(drop));
    until_waiting(&broker, "orders", 0).await;
    broker.publish(&order("o-1", "Pier 7")).await;
    until("an order is begun", || stage.records() == 1);
    drop(killed);
    broker.publish(&order("o-1", "Pier 7")).await; // published again
    broker.publish(&order("o-2", "")).await;
    broker.publish(&order("o-3", "Pier 8")).await;
    let book = stage.path("book");
    // What a consumer that ends has not acknowledged waits in the queue again.
    loop {
        let (mut survivor, log) = stage.consumer(PROGRAM, &broker.url, &book);
        std::thread::spawn(move || log.for_each(drop));
        until_waiting(&broker, "orders", 0).await;
        survivor.terminate();
        // The broker counts what comes back a little later, so the count alone says too little.
        if shipped(&book).len() > 1 && broker.waiting("orders").await == Some(0) {
            break;
        }
    }
    assert_eq!(broker.waiting("orders-aside").await, Some(1));
    let mut orders = shipped(&book);
    orders.sort();
    assert_eq!(orders, ["o-1", "o-3"]);
}
