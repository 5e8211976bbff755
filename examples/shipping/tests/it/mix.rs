//! Requests whose outcomes are known, and what was counted meanwhile.
//!
//! Owns the services they are sent to, each a process of its own with a Redis. They run once, for every test that looks at
//! what was counted.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpStream;

use idem_tests::{RedisServer, until};
use serde_json::json;
use sqlx::{Connection as _, SqliteConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::client::{Answer, Client, order, raw_order};
use crate::exposition::Page;
use crate::process::Service;

const ORDER: &str = "/shipping/order";
const ACME: &str = "acme-demo";

/// Longer than a duplicate takes to find that it has to wait.
const DELAY: (&str, &str) = ("SHIPPING_DELAY_MS", "2500");
/// Longer than the second, a third of a lease, after which a lease is renewed.
const BEYOND_A_RENEWAL: (&str, &str) = ("SHIPPING_DELAY_MS", "4000");

/// What was counted.
pub(crate) struct Counted {
    /// While a handler ran and a duplicate waited for it.
    pub(crate) meanwhile: Page,
    /// When they were done, before Redis was killed.
    pub(crate) with_redis: Page,
    /// At the end.
    pub(crate) without_redis: Page,
    /// Where a handler lost its claim.
    pub(crate) overtaken: Page,
    /// Where another one took its place.
    pub(crate) overtaking: Page,
}

/// Sends the requests, the first time that it is asked.
pub(crate) async fn counted() -> &'static Counted {
    static COUNTED: OnceCell<Counted> = OnceCell::const_new();
    COUNTED
        .get_or_init(async || {
            let (outcomes, [overtaken, overtaking]) = tokio::join!(outcomes(), take_over());
            let [meanwhile, with_redis, without_redis] = outcomes;
            Counted {
                meanwhile,
                with_redis,
                without_redis,
                overtaken,
                overtaking,
            }
        })
        .await
}

pub(crate) fn outcomes_of(page: &Page) -> BTreeMap<String, f64> {
    page.by("idem_requests_total", "outcome")
}

/// Waits until so many requests had an outcome.
async fn until_ended(client: &Client, outcome: &str, count: f64) {
    until(outcome, async || {
        outcomes_of(&Page::of(client).await).get(outcome) == Some(&count)
    })
    .await;
}

async fn outcomes() -> [Page; 3] {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut redis = RedisServer::start().await;
    let (database, redis_url) = (database(&folder), redis.url());
    let variables = [DELAY, ("DATABASE_URL", &database), ("REDIS_URL", &redis_url)];
    let mut service = Service::start_with(&variables);
    let client = service.client.clone();
    let post = async |key: &str, order_id: &str| client.post(ORDER, ACME, key, &order(order_id)).await.status;

    let meanwhile = one_order_thrice(&mut service, &redis).await;
    for _ in 0..3 {
        assert_eq!(post("k", "a").await, 201);
    }
    for _ in 0..2 {
        assert_eq!(post("k", "another").await, 422);
        assert_eq!(post(&"long".repeat(64), "a").await, 400);
    }
    assert_eq!(post("", "a").await, 400);
    uncounted(&client).await;
    // An order that the handler refuses is an answer like any other.
    assert_eq!(post("refused", "").await, 422);
    assert_eq!(post("refused", "").await, 422);
    rename_orders(&database, "orders", "elsewhere").await;
    for _ in 0..2 {
        assert_eq!(post("broken", "b").await, 500);
    }
    rename_orders(&database, "elsewhere", "orders").await;
    let with_redis = Page::of(&client).await;

    let unrecorded = send(&client, "c");
    service.process.wait_for_log("packing");
    redis.kill();
    assert_eq!(unrecorded.await.expect("no panic").status, 201);
    for _ in 0..2 {
        assert_eq!(post("d", "d").await, 503);
    }
    [meanwhile, with_redis, Page::of(&client).await]
}

/// An order, a duplicate that waits for its answer, and one whose client does not.
async fn one_order_thrice(service: &mut Service, redis: &RedisServer) -> Page {
    let client = service.client.clone();
    let first = send(&client, "k");
    service.process.wait_for_log("packing");
    let duplicate = send(&client, "k");
    redis.wait_for_calls("subscribe", 1).await;
    let meanwhile = Page::of(&client).await;

    let mut impatient = TcpStream::connect(&client.addr).expect("it listens");
    let request = raw_order(&client.addr, "k", "", &order("a"));
    impatient.write_all(request.as_bytes()).expect("it reads");
    until("the impatient one waits", async || {
        Page::of(&client).await.value("idem_waiters", &[]) == Some(2.0)
    })
    .await;
    drop(impatient);
    until_ended(&client, "abandoned", 1.0).await;

    for call in [first, duplicate] {
        assert_eq!(call.await.expect("no panic").status, 201);
    }
    meanwhile
}

/// Requests that are none of idem's: one that an extractor refuses, one for a handler without the attribute, and those of
/// operators.
async fn uncounted(client: &Client) {
    assert_eq!(client.post(ORDER, "nobody", "k", &order("a")).await.status, 401);
    let naive = client.post("/naive/shipping/order", ACME, "k", &order("")).await;
    assert_eq!(naive.status, 422);
    assert_eq!(client.post(ORDER, ACME, "k", &json!([])).await.status, 422);
    client.get_bare("/health/ready").await;
}

/// A handler that runs on though its lease has lapsed and another process has taken its place.
async fn take_over() -> [Page; 2] {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let redis = RedisServer::start().await;
    let (database, redis_url) = (database(&folder), redis.url());
    let shared = [("DATABASE_URL", &*database), ("REDIS_URL", &redis_url)];
    let mut slow = Service::start_with(&[&[BEYOND_A_RENEWAL], &shared[..]].concat());
    let fast = Service::start_with(&[&[("SHIPPING_DELAY_MS", "0")], &shared[..]].concat());

    let first = send(&slow.client, "k");
    slow.process.wait_for_log("packing");
    // A live claim is kept for longer than the 24 hours of `ttl`: what is kept for less has lapsed.
    redis.tell("PEXPIRE idem:{POST%20/shipping/order:acme:k} 3600000").await;
    let second = send(&fast.client, "k");

    assert_eq!(second.await.expect("no panic").status, 201);
    assert_eq!(first.await.expect("no panic").status, 201);
    [Page::of(&slow.client).await, Page::of(&fast.client).await]
}

/// Sends an order on its way.
fn send(client: &Client, key: &'static str) -> tokio::task::JoinHandle<Answer> {
    let client = client.clone();
    tokio::spawn(async move { client.post(ORDER, ACME, key, &order("a")).await })
}

fn database(folder: &TempDir) -> String {
    format!("sqlite:{}?mode=rwc", folder.path().join("shipping.db").display())
}

/// A database that has no such table fails every order.
async fn rename_orders(database: &str, from: &str, to: &str) {
    let mut connection = SqliteConnection::connect(database).await.expect("the file is there");
    let rename = sqlx::AssertSqlSafe(format!("ALTER TABLE {from} RENAME TO {to}"));
    sqlx::raw_sql(rename)
        .execute(&mut connection)
        .await
        .expect("it can be renamed");
}
