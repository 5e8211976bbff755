//! How cost grows: with the records that Redis holds, with those who wait, and with the threads of a service.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::load::{CONNECTIONS, Connection, Keys, Load};
use crate::measure::{Measured, Subject, once};
use crate::processes::{Redis, Service};

const RECORDS: [u32; 4] = [1_000, 100_000, 1_000_000, 5_000_000];
const WAITERS: [u32; 5] = [1, 10, 100, 1_000, 10_000];
const THREADS: [u32; 5] = [1, 2, 4, 8, 16];

/// Bytes of a body.
const BYTES: usize = 200;

const TIME: Duration = Duration::from_secs(2);

/// Prints a table of each.
pub(crate) async fn all() {
    records().await;
    waiters().await;
    threads().await;
}

async fn records() {
    println!(
        "{:>10}{:>12}{:>10}{:>9}{:>9}{:>10}",
        "records", "B/record", "req/s", "p50 us", "p99 us", "Redis us"
    );
    for (seed, count) in (1_u64..).zip(RECORDS) {
        let subject = Subject::start("redis").await;
        let empty = subject.redis.usage().await;
        multiply(&subject, count).await;
        let full = subject.redis.usage().await;
        let each = (full.memory - empty.memory) / f64::from(count);
        let measured = first_requests(&subject, seed).await;
        println!(
            "{count:>10}{each:>12.0}{:>10.0}{:>9.0}{:>9.0}{:>10.1}",
            measured.outcome.rate,
            measured.outcome.p50,
            measured.outcome.p99,
            measured.processor.unwrap_or(f64::NAN),
        );
    }
}

/// First requests for a while.
async fn first_requests(subject: &Subject, seed: u64) -> Measured {
    let load = Load {
        address: subject.service.address,
        keys: Keys::Unique,
        connections: CONNECTIONS,
        bytes: BYTES,
        time: TIME,
        seed,
    };
    once(subject, load).await
}

/// Fills Redis with so many records, all of them as the service's own but for their keys.
async fn multiply(subject: &Subject, count: u32) {
    let key = "8e03978e-40d5-43dd-bc93-000000000000";
    let mut http = Connection::open(subject.service.address, BYTES).await;
    http.exchange("/orders", key).await;
    let mut connection = subject.redis.connection().await;
    let names: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut connection)
        .await
        .expect("KEYS");
    let name = names.first().expect("the record");
    let record: Vec<u8> = redis::cmd("GET")
        .arg(name)
        .query_async(&mut connection)
        .await
        .expect("GET");
    for first in (1..count).step_by(1_000) {
        let mut pipeline = redis::pipe();
        for number in first..count.min(first + 1_000) {
            let name = name.replace("000000000000", &format!("{number:012}"));
            pipeline
                .cmd("SET")
                .arg(name)
                .arg(&record)
                .arg("PX")
                .arg(86_400_000)
                .ignore();
        }
        pipeline.exec_async(&mut connection).await.expect("SET");
    }
}

/// All of them for one answer, from the moment that the first one has it.
async fn waiters() {
    println!("\n{:>10}{:>14}{:>14}", "waiters", "first ms", "last ms");
    let redis = Redis::start().await;
    let service = Service::start("redis", &redis.url).await;
    let other = Service::start("redis", &redis.url).await;
    for count in WAITERS {
        let mut connections = Vec::new();
        for _ in 0..count {
            connections.push(Connection::open(other.address, BYTES).await);
        }
        let key = format!("waiters-{count}");
        let mut first = Connection::open(service.address, BYTES).await;
        let begun = tokio::spawn({
            let key = key.clone();
            async move {
                first.exchange("/slower", &key).await;
                Instant::now()
            }
        });
        tokio::time::sleep(idem_bench::SLOW).await;
        let mut waiters = JoinSet::new();
        for mut connection in connections {
            let key = key.clone();
            waiters.spawn(async move {
                connection.exchange("/slower", &key).await;
                Instant::now()
            });
        }
        let answered = begun.await.expect("no panic");
        let mut late: Vec<_> = waiters
            .join_all()
            .await
            .into_iter()
            .map(|woken| woken.saturating_duration_since(answered).as_secs_f64() * 1e3)
            .collect();
        late.sort_by(f64::total_cmp);
        let of = |end: Option<&f64>| end.copied().unwrap_or(f64::NAN);
        println!("{count:>10}{:>14.2}{:>14.2}", of(late.first()), of(late.last()));
    }
}

async fn threads() {
    println!("\n{:>10}{:>10}{:>9}{:>9}", "threads", "req/s", "p50 us", "p99 us");
    for (seed, count) in (100_u64..).zip(THREADS) {
        let subject = Subject::start_with("redis", Some(count)).await;
        let measured = first_requests(&subject, seed).await;
        let outcome = measured.outcome;
        println!(
            "{count:>10}{:>10.0}{:>9.0}{:>9.0}",
            outcome.rate, outcome.p50, outcome.p99
        );
    }
}
