//! Consumers of one topic, on the mock cluster of librdkafka.

mod shared;

use std::fs::File;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use shared::{Stage, order, shipped, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kafka");
const SOON: Duration = Duration::from_secs(10);

struct Kafka(MockCluster<'static, DefaultProducerContext>);

impl Kafka {
    fn start() -> Self {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic("orders", 2, 1).expect("a topic");
        cluster.create_topic("orders-aside", 1, 1).expect("a topic");
        Self(cluster)
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.0.bootstrap_servers())
            .set("group.id", "shippers");
        config
    }

    fn publish(&self, partition: i32, payloads: &[String]) {
        let producer: BaseProducer = self.client().create().expect("a producer");
        for payload in payloads {
            let record: BaseRecord<'_, str, str> = BaseRecord::to("orders").partition(partition).payload(payload);
            producer.send(record).map_err(|(error, _)| error).expect("it is queued");
        }
        producer.flush(SOON).expect("it is sent");
    }

    /// Where the group goes on, by partition.
    fn committed(&self) -> [Offset; 2] {
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range("orders", 0, 1);
        let committed = consumer.committed_offsets(partitions, SOON).expect("offsets");
        [0, 1].map(|partition| {
            committed
                .find_partition("orders", partition)
                .expect("asked for")
                .offset()
        })
    }

    fn set_aside(&self) -> i64 {
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        let (low, high) = consumer.fetch_watermarks("orders-aside", 0, SOON).expect("watermarks");
        high - low
    }
}

#[test]
fn a_partition_is_in_order_and_stops_at_its_first_failure() {
    let (stage, kafka) = (Stage::start(), Kafka::start());
    let folder = stage.path("carrier");
    let book = folder.join("book");
    let orders = [
        order("o-1", "Pier 7"),
        order("o-2", ""),
        order("o-1", "Pier 7"),
        order("o-3", "Pier 8"),
    ];
    kafka.publish(0, &orders);
    kafka.publish(1, &["not an order".to_owned()]);
    let (_consumer, mut log) = stage.consumer(PROGRAM, &kafka.0.bootstrap_servers(), &book);
    std::thread::spawn(move || {
        while let Some(Ok(line)) = log.next() {
            println!("{line}");
        }
    });
    until("the other partition goes on", || {
        kafka.committed()[1] == Offset::Offset(1)
    });
    // The carrier is away.
    assert_ne!(kafka.committed()[0], Offset::Offset(1));
    std::fs::create_dir(folder).expect("a new folder");
    until("the partition is done", || kafka.committed()[0] == Offset::Offset(4));
    assert_eq!(shipped(&book), ["o-1", "o-3"]);
    assert_eq!(kafka.set_aside(), 2);
}

#[test]
fn an_order_that_runs_while_its_partition_is_revoked_is_shipped_once() {
    let (stage, kafka) = (Stage::start(), Kafka::start());
    kafka.publish(0, &[order("o-1", "Pier 7")]);
    kafka.publish(1, &[order("o-2", "Pier 8")]);
    let closed = stage.closed_book("closed");
    let (_first, mut log) = stage.consumer(PROGRAM, &kafka.0.bootstrap_servers(), &closed);
    until("an order is begun", || stage.records() > 0);
    let book = stage.path("book");
    let (_second, second_log) = stage.consumer(PROGRAM, &kafka.0.bootstrap_servers(), &book);
    let revoked = log.find(|line| line.as_ref().is_ok_and(|line| line.contains("revoked")));
    assert!(revoked.is_some(), "it goes on");
    std::thread::spawn(move || second_log.for_each(drop));
    std::thread::spawn(move || log.for_each(drop));
    let read = Arc::new(Mutex::new(String::new()));
    let reading = read.clone();
    std::thread::spawn(move || {
        loop {
            let text = std::io::read_to_string(File::open(&closed).expect("it is there"));
            reading.lock().expect("no panic").push_str(&text.expect("a text"));
        }
    });
    until("both partitions are done", || {
        kafka.committed() == [Offset::Offset(1); 2]
    });
    let mut orders = shipped(&book);
    orders.extend(read.lock().expect("no panic").lines().map(str::to_owned));
    orders.sort_unstable();
    assert_eq!(orders, ["o-1", "o-2"]);
}

#[test]
fn what_a_killed_consumer_had_begun_is_shipped_by_another() {
    let (stage, kafka) = (Stage::start(), Kafka::start());
    kafka.publish(0, &[order("o-1", "Pier 7"), order("o-2", "Pier 8")]);
    let closed = stage.closed_book("closed");
    let (killed, _log) = stage.consumer(PROGRAM, &kafka.0.bootstrap_servers(), &closed);
    until("the first order is begun", || stage.records() == 1);
    drop(killed);
    let book = stage.path("book");
    let (_survivor, log) = stage.consumer(PROGRAM, &kafka.0.bootstrap_servers(), &book);
    std::thread::spawn(move || log.for_each(drop));
    until("the partition is done", || kafka.committed()[0] == Offset::Offset(2));
    assert_eq!(shipped(&book), ["o-1", "o-2"]);
}
