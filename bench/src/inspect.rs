//! What an operator's list costs on a million records, and what a claim takes meanwhile.
//!
//! The lists are made in a process of their own, so that its memory can be measured. This process claims keys, one after the other.

use std::time::{Duration, Instant};

use idem_axum::RedisBackend;
use idem_core::inspect::{Operator, PAGE, Selection, Tally};
use idem_core::steps::StepBackend as _;
use idem_core::{
    Acquisition, Backend as _, Claim, ClaimPolicy, Completion, Fingerprint, IdempotencyKey, RecordKey, Scope,
};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::processes::{Redis, this_program};

const RECORDS: usize = 1_000_000;

/// Bytes of an answer.
const BYTES: usize = 200;

/// How many claims are made before the lists.
const ALONE: usize = 5_000;

/// The pause between two claims.
const PAUSE: Duration = Duration::from_millis(1);

/// What the process of the lists prints.
#[derive(Debug, Serialize, Deserialize)]
struct Listed {
    /// Seconds of the first list of 20, connecting included, and of the second.
    first: f64,
    second: f64,
    /// Of the whole scan.
    seconds: f64,
    records: u64,
    pages: u64,
    commands: u64,
    /// Kilobytes that the process had in memory before the scan, and at most.
    before: u64,
    most: u64,
}

/// Fills a server, lists, and prints what it took.
pub(crate) async fn all() {
    let redis = Redis::start().await;
    let backend = RedisBackend::connect(&redis.url).await.expect("the server answers");
    fill(&redis, &backend).await;
    let alone = claims(&backend, ALONE, "alone").await;
    let lists = tokio::spawn({
        let url = redis.url.clone();
        async move { in_a_process(&url).await }
    });
    let mut meanwhile = Vec::new();
    for round in 0.. {
        if lists.is_finished() {
            break;
        }
        meanwhile.extend(claims(&backend, 100, &format!("meanwhile-{round}")).await);
    }
    let listed = lists.await.expect("no panic");
    report(&listed);
    println!(
        "{:<28}{:>9}{:>10}{:>10}{:>10}",
        "", "claims", "p50 ms", "p99 ms", "most ms"
    );
    for (name, mut times) in [("a claim, alone", alone), ("a claim, during the scan", meanwhile)] {
        times.sort();
        let at = |share: usize| {
            let time = times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
            time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
        };
        println!(
            "{name:<28}{:>9}{:>10.2}{:>10.2}{:>10.2}",
            times.len(),
            at(50),
            at(99),
            at(100)
        );
    }
}

fn report(listed: &Listed) {
    let ratio = |part: u64, whole: u64| {
        let [part, whole] = [part, whole].map(|count| f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
        part / whole
    };
    println!("list of 20, connecting included  {:>9.1} ms", listed.first * 1e3);
    println!("list of 20, again                {:>9.1} ms", listed.second * 1e3);
    println!("whole scan                       {:>9.1} s", listed.seconds);
    println!("records                          {:>9}", listed.records);
    println!("pages                            {:>9}", listed.pages);
    println!(
        "commands a record                {:>9.3}",
        ratio(listed.commands, listed.records)
    );
    println!("memory before the scan           {:>9} KiB", listed.before);
    println!("most memory, scan included       {:>9} KiB\n", listed.most);
}

/// Writes a million copies of eight records in all states, under keys of their own.
async fn fill(redis: &Redis, backend: &RedisBackend) {
    let mut connection = redis.connection().await;
    let mut records: Vec<Vec<u8>> = Vec::new();
    for state in [
        "stored",
        "stored",
        "stored",
        "stored",
        "claimed",
        "parked",
        "not stored",
        "unknown",
    ] {
        let (key, claim) = (key(state), claim());
        let acquired = backend.claim(&key, &claim).await.expect("the server answers");
        assert_eq!(acquired, Acquisition::Acquired);
        let completion = match state {
            "stored" => Some(Completion::Stored(vec![b'x'; BYTES].into())),
            "not stored" => Some(Completion::NotStored),
            "unknown" => Some(Completion::Unknown),
            _ => None,
        };
        if let Some(completion) = completion {
            let _ = backend
                .complete(&key, &claim, &completion, claim.ttl)
                .await
                .expect("it answers");
        }
        if state == "parked" {
            let step = b"1".to_vec().into();
            let _ = backend
                .record_step(&key, &claim, "one", &step)
                .await
                .expect("it answers");
            let _ = backend.park(&key, &claim).await.expect("it answers");
        }
        let name = format!("idem:{{{key}}}");
        let mut get = redis::cmd("GETDEL");
        records.push(get.arg(name).query_async(&mut connection).await.expect("GETDEL"));
    }
    for first in (0..RECORDS).step_by(1_000) {
        let mut pipeline = redis::pipe();
        for number in first..RECORDS.min(first + 1_000) {
            let name = format!("idem:{{{}}}", key(&number));
            let record = &records[number % records.len()];
            pipeline
                .cmd("SET")
                .arg(name)
                .arg(record)
                .arg("PX")
                .arg(86_400_000)
                .ignore();
        }
        pipeline.exec_async(&mut connection).await.expect("SET");
    }
}

fn key(name: &(impl std::fmt::Display + ?Sized)) -> RecordKey {
    RecordKey::new("POST /orders", &Scope::of("acme"), &IdempotencyKey::of(name)).expect("a key")
}

fn claim() -> Claim {
    Claim::first(Fingerprint::NONE, &ClaimPolicy::new(Duration::from_hours(24)))
}

/// How long each of `count` claims took.
async fn claims(backend: &RedisBackend, count: usize, name: &str) -> Vec<Duration> {
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        tokio::time::sleep(PAUSE).await;
        let (key, claim) = (key(&format_args!("{name}-{number}")), claim());
        let begun = Instant::now();
        let acquired = backend.claim(&key, &claim).await.expect("the server answers");
        times.push(begun.elapsed());
        assert_eq!(acquired, Acquisition::Acquired);
    }
    times
}

async fn in_a_process(url: &str) -> Listed {
    let output = Command::new(this_program())
        .args(["list", url])
        .kill_on_drop(true)
        .output();
    let output = output.await.expect("this program starts");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("it prints what it has measured")
}

/// Lists twenty records twice, and then all.
pub(crate) async fn list(url: &str) {
    let begun = Instant::now();
    let backend = RedisBackend::connect(url).await.expect("the server answers");
    let operator = Operator::new(backend, "bench").expect("Redis can be inspected");
    let mut lists = Vec::new();
    for begun in [Some(begun), None] {
        let begun = begun.unwrap_or_else(Instant::now);
        let list = operator.list(&Selection::all(), None, 20, |_| true, |_| {}).await;
        assert!(list.expect("the server answers").records.len() >= 20);
        lists.push(begun.elapsed().as_secs_f64());
    }
    let before = memory("VmRSS:");
    let begun = Instant::now();
    let (mut tally, mut after) = (Tally::default(), None);
    let (mut records, mut pages, mut commands) = (0, 0, 0);
    loop {
        let page = operator.scan(&Selection::all(), after.as_ref(), PAGE).await;
        let page = page.expect("the server answers");
        page.records.iter().for_each(|listed| tally.add(listed));
        records += page.records.len() as u64;
        commands += page.commands;
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(tally.unreadable, 0);
    let listed = Listed {
        first: lists[0],
        second: lists[1],
        seconds: begun.elapsed().as_secs_f64(),
        records,
        pages,
        commands,
        before,
        most: memory("VmHWM:"),
    };
    println!("{}", serde_json::to_string(&listed).expect("numbers"));
}

/// What Linux says about the memory of this process, in kilobytes.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("the kernel says it")
}
