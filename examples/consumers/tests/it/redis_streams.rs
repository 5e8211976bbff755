//! Consumers of one stream: dead ones, and ones that work for long.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use idem_tests::{RedisServer, in_time, until};
use redis::AsyncCommands as _;
use redis::streams::{StreamPendingCountReply, StreamPendingId};

use crate::program::{Books, Program, shipped};

/// One order, as its producer publishes it.
async fn publish(server: &RedisServer, id: &str, address: &str) {
    let order = format!(r#"{{"id": "{id}", "item": "a pump", "address": "{address}"}}"#);
    let mut redis = server.connection().await;
    let added: redis::RedisResult<String> = redis.xadd("orders", "*", &[("order", order)]).await;
    added.expect("a stream");
}

fn consumer(server: &RedisServer, name: &str, book: &Path) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redis_streams"));
    let command = command.arg(name).env("REDIS_URL", server.url()).env("BOOK", book);
    Program::start(command.env("LEASE", "1").env("IDLE", "2"))
}

/// The messages that are delivered and not acknowledged; none before there is a group.
async fn pending(server: &RedisServer) -> Vec<StreamPendingId> {
    let mut redis = server.connection().await;
    let pending = redis.xpending_count("orders", "shippers", "-", "+", 100).await;
    pending.map_or_else(|_| Vec::new(), |reply: StreamPendingCountReply| reply.ids)
}

async fn length(server: &RedisServer, stream: &str) -> u32 {
    let length = server.connection().await.xlen(stream).await;
    length.expect("it can be counted")
}

/// Waits until a task runs.
async fn wait_for_a_claim(server: &RedisServer) {
    // The stream, and the record.
    server.wait_for_keys(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_consumer_had_is_shipped_once_by_another() {
    let (books, server) = (Books::new(), RedisServer::start().await);
    publish(&server, "o-1", "Pier 7").await;
    let killed = consumer(&server, "a", &books.closed("closed"));
    wait_for_a_claim(&server).await;
    drop(killed);
    publish(&server, "o-1", "Pier 7").await; // published again
    publish(&server, "o-2", "").await;
    publish(&server, "o-3", "Pier 8").await;
    let book = books.path("book");
    let _survivor = consumer(&server, "b", &book);
    let done = async {
        until("the address that is none is set aside", async || {
            length(&server, "orders:aside").await == 1
        })
        .await;
        until("all is acknowledged", async || pending(&server).await.is_empty()).await;
    };
    in_time(done).await;
    let mut orders = shipped(&book);
    orders.sort();
    assert_eq!(orders, ["o-1", "o-3"]);
    assert_eq!(length(&server, "orders:aside").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_stays_with_the_consumer_that_works_on_it() {
    let (books, server) = (Books::new(), RedisServer::start().await);
    publish(&server, "o-1", "Pier 7").await;
    let closed = books.closed("closed");
    let _slow = consumer(&server, "a", &closed);
    wait_for_a_claim(&server).await;
    let book = books.path("book");
    let _idle = consumer(&server, "b", &book);
    // For longer than a message of a dead one is idle, another consumer looks for such messages.
    let mut renewals = 0;
    let mut last = 0;
    let renewed = async {
        while renewals < 9 {
            let [message] = &pending(&server).await[..] else {
                panic!("it is pending")
            };
            assert_eq!((&*message.consumer, message.times_delivered), ("a", 1));
            renewals += u32::from(message.last_delivered_ms < last);
            last = message.last_delivered_ms;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time(renewed).await;
    let reader = std::thread::spawn(move || std::io::read_to_string(File::open(closed).expect("it is there")));
    in_time(until("it is acknowledged", async || pending(&server).await.is_empty())).await;
    let read = reader.join().expect("no panic").expect("a text");
    assert_eq!(read, "o-1\n");
    assert!(shipped(&book).is_empty());
}
