//! Events go in as JSON, and what is to be delivered again comes out as JSON.

use std::fs;
use std::path::Path;
use std::process::Command;

use idem_tests::RedisServer;
use serde_json::{Value, json};

use crate::program::{Books, Program, shipped};

const QUEUE: &str = "arn:aws:sqs:eu-central-1:123456789012:orders";

/// A message as a function gets it, as far as the program reads it, and one field beside it.
fn message(id: &str, order: &Value, group: Option<&str>) -> Value {
    let mut attributes = json!({"ApproximateReceiveCount": "1"});
    if let Some(group) = group {
        attributes["MessageGroupId"] = json!(group);
    }
    let body = order.as_str().map_or_else(|| order.to_string(), str::to_owned);
    json!({"messageId": id, "body": body, "eventSourceARN": QUEUE, "attributes": attributes})
}

fn order(id: &str) -> Value {
    json!({"id": id, "item": "a pump", "address": "Pier 7"})
}

/// The messages that an event makes the queue deliver again.
fn failures(function: &mut Program, messages: &[Value]) -> Vec<String> {
    let answer = function.ask(&json!({"Records": messages}).to_string());
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let failures = answer["batchItemFailures"].as_array().expect("a list");
    let id = |failure: &Value| failure["itemIdentifier"].as_str().expect("a text").to_owned();
    failures.iter().map(id).collect()
}

async fn function(book: &Path) -> (Program, RedisServer) {
    let server = RedisServer::start().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_sqs"));
    command.env("REDIS_URL", server.url()).env("BOOK", book);
    (Program::start(&mut command), server)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_failed_is_delivered_again_and_a_duplicate_is_not_shipped() {
    let books = Books::new();
    let book = books.path("book");
    let (mut function, _server) = function(&book).await;
    let nowhere = json!({"id": "o-3", "item": "a pump", "address": ""});
    let event = [
        message("m-1", &order("o-1"), None),
        message("m-2", &order("o-1"), None), // published again
        message("m-3", &nowhere, None),
        message("m-4", &json!("not an order"), None),
        message("m-5", &order("o-5"), None),
    ];
    for delivery in 1..=2 {
        assert_eq!(failures(&mut function, &event), ["m-3", "m-4"], "delivery {delivery}");
    }
    let mut orders = shipped(&book);
    orders.sort();
    assert_eq!(orders, ["o-1", "o-5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fifo_group_stops_at_its_first_failure_and_goes_on_from_there() {
    let books = Books::new();
    let folder = books.path("carrier");
    let book = folder.join("book");
    let (mut function, _server) = function(&book).await;
    let event = [
        message("m-1", &order("o-1"), Some("acme")),
        message("m-2", &json!("not an order"), Some("globex")),
        message("m-3", &order("o-3"), Some("acme")),
        message("m-4", &order("o-4"), Some("globex")),
    ];
    assert_eq!(
        failures(&mut function, &event),
        ["m-1", "m-2", "m-3", "m-4"],
        "no carrier"
    );
    fs::create_dir(&folder).expect("a new folder");
    assert_eq!(failures(&mut function, &event), ["m-2", "m-4"]);
    assert_eq!(shipped(&book), ["o-1", "o-3"]);
    // The queue has moved m-2 to its dead-letter queue.
    assert_eq!(failures(&mut function, &event[2..]), Vec::<String>::new());
    assert_eq!(shipped(&book), ["o-1", "o-3", "o-4"]);
}
