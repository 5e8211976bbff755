//! What waiting and outages cost, measured. Nothing here is judged, for a machine may be busy.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use reqwest::Method;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::siege::memory;
use crate::{Answer, Client, Order, PATIENCE, Process, RedisServer};

/// How many keys somebody waits for, each alone.
const WAITERS: usize = 10_000;
/// How many requests wait for one answer, over two processes.
const CROWD: usize = 200;
/// How many requests share a connection: what an HTTP/2 server lets one have by default.
const STREAMS: usize = 200;
/// How many requests are sent to an outage at a time, and how often.
const AT_A_TIME: usize = 50;
const WAVES: usize = 4;

/// What waiting and outages cost.
#[derive(Debug)]
pub struct Measures {
    waiting: Waiting,
    /// How much later than the first one's answer each of the crowd has its own, the fastest first.
    crowd: Vec<Duration>,
    frozen: Vec<Duration>,
    killed: Vec<Duration>,
    /// From the death of an owner until one that waited has run in its place, with a lease of two seconds.
    inherited: Duration,
    /// From the end of a handler until its client has the 201, while Redis is frozen.
    answered: Duration,
}

/// What as many waiters on as many keys cost the process that they wait in.
#[derive(Debug)]
struct Waiting {
    /// From the first one's request until all listen.
    listening: Duration,
    /// From the end of the first handler until all are answered.
    answering: Duration,
    /// How many bytes the process grew by, where the system says.
    memory: Option<u64>,
    replays: usize,
}

impl Measures {
    /// Takes some twenty seconds, with the `server` at `binary`.
    pub async fn take(binary: &Path) -> Self {
        let waiting = Waiting::measure(binary).await;
        let crowd = crowd(binary).await;
        let mut redis = RedisServer::start().await;
        let process = Process::start(binary, &redis.url());
        redis.freeze();
        let frozen = refusals(&process.client).await;
        redis.thaw();
        redis.kill();
        let killed = refusals(&process.client).await;
        Self {
            inherited: inherited(binary).await,
            answered: answered(binary).await,
            waiting,
            crowd,
            frozen,
            killed,
        }
    }
}

/// How long each 503 of an outage takes, the fastest first.
async fn refusals(client: &Client) -> Vec<Duration> {
    let mut times = Vec::new();
    for wave in 0..WAVES {
        let mut calls = JoinSet::new();
        for number in 0..AT_A_TIME {
            let order = format!("outage {wave} {number}");
            let call = client.order(&order, &Order::new(&order));
            calls.spawn(async move {
                let asked = Instant::now();
                (call.send().await, asked.elapsed())
            });
        }
        for (answer, took) in calls.join_all().await {
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
            times.push(took);
        }
    }
    times.sort_unstable();
    times
}

/// How much later than the first one's answer its duplicates get theirs, from two processes.
async fn crowd(binary: &Path) -> Vec<Duration> {
    let redis = RedisServer::start().await;
    let processes = [(); 2].map(|()| Process::start(binary, &redis.url()));
    let order = Order::new("crowd").held();
    let mut calls = JoinSet::new();
    for process in processes.iter().cycle().take(CROWD) {
        let call = process.client.order_at("/orders/waiting-long", "crowd", &order);
        calls.spawn(async move { (call.send().await, Instant::now()) });
    }
    // In each process, somebody asks for the lease when the first duplicate comes and once it listens.
    redis.wait_for_calls("pttl", 2 * processes.len() as u64).await;
    for process in &processes {
        process.client.call(Method::POST, "/gate").send().await;
    }
    let answers = calls.join_all().await;
    let first = answers.iter().find(|(answer, _)| !answer.is_replay());
    let (_, first) = first.expect("one was executed");
    let later = |(_, at): &(Answer, Instant)| at.saturating_duration_since(*first);
    let mut times: Vec<_> = answers.iter().map(later).collect();
    times.sort_unstable();
    times
}

/// How long a waiter waits for its turn when the owner of the claim is killed.
async fn inherited(binary: &Path) -> Duration {
    let redis = RedisServer::start().await;
    let [mut owner, other] = [(); 2].map(|()| Process::start(binary, &redis.url()));
    let order = Order::new("inherited").held();
    let first = tokio::spawn(owner.client.order_at("/orders/waiting", "inherited", &order).try_send());
    redis.wait_for_calls("set", 1).await;
    let waiter = tokio::spawn(other.client.order_at("/orders/waiting", "inherited", &order).send());
    redis.wait_for_calls("pttl", 2).await;
    other.client.call(Method::POST, "/gate").send().await;
    owner.kill();
    let died = Instant::now();
    let answer = waiter.await.expect("no panic");
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let inherited = died.elapsed();
    assert!(first.await.expect("no panic").is_err(), "its process is dead");
    inherited
}

/// How long a client waits for its answer when its outcome cannot be recorded.
async fn answered(binary: &Path) -> Duration {
    let redis = RedisServer::start().await;
    let process = Process::start(binary, &redis.url());
    let order = Order::new("answered").held();
    let call = tokio::spawn(process.client.order("answered", &order).send());
    redis.wait_for_calls("set", 1).await;
    redis.freeze();
    process.client.call(Method::POST, "/gate").send().await;
    let ended = Instant::now();
    let answer = call.await.expect("no panic");
    let waited = ended.elapsed();
    redis.thaw();
    assert!(
        answer.status == StatusCode::CREATED && answer.says_not_stored(),
        "{answer:?}"
    );
    waited
}

impl Waiting {
    async fn measure(binary: &Path) -> Self {
        let redis = RedisServer::start().await;
        let [owner, other] = [(); 2].map(|()| Process::start(binary, &redis.url()));
        let mut executing = JoinSet::new();
        send(&owner, &mut executing, async |sent| redis.records().await >= sent).await;
        // Its connections, and what else is opened once.
        other.client.order("warm", &Order::new("warm")).send().await;

        let before = memory(other.id());
        let asked = Instant::now();
        let mut waiting = JoinSet::new();
        send(&other, &mut waiting, async |sent| redis.channels().await >= sent).await;
        let listening = asked.elapsed();
        let memory = memory(other.id())
            .zip(before)
            .map(|(after, before)| after.saturating_sub(before));

        let opened = Instant::now();
        owner.client.call(Method::POST, "/gate").send().await;
        let answers = waiting.join_all().await;
        let answering = opened.elapsed();
        executing.join_all().await;
        Self {
            listening,
            answering,
            memory,
            replays: answers.iter().filter(|answer| answer.is_replay()).count(),
        }
    }
}

/// Sends one request a key, and waits for so many to have arrived before it sends more: what comes all at once would
/// wait for the processor, beyond its deadline.
async fn send(process: &Process, calls: &mut JoinSet<Answer>, have_arrived: impl AsyncFn(usize) -> bool) {
    for first in (0..WAITERS).step_by(STREAMS) {
        let client = process.client.with_http2();
        for number in first..first + STREAMS {
            let order = Order::new(&format!("o{number}")).held();
            calls.spawn(client.order_at("/orders/waiting-long", &order.order, &order).send());
        }
        let since = Instant::now();
        while !have_arrived(first + STREAMS).await {
            assert!(since.elapsed() < PATIENCE, "some requests never arrive");
            sleep(Duration::from_millis(1)).await;
        }
    }
}

impl fmt::Display for Measures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, times) in [
            ("503 while Redis is frozen, p50 and max", &self.frozen),
            ("503 while Redis is killed, p50 and max", &self.killed),
            ("200 waiters after the first, p50 and max", &self.crowd),
        ] {
            let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
            writeln!(f, "{what:<42}{:>8}{:>8} ms", median.as_millis(), longest.as_millis())?;
        }
        for (what, time) in [
            ("201 while Redis is frozen", self.answered),
            ("dead owner's claim inherited, lease of 2 s", self.inherited),
        ] {
            writeln!(f, "{what:<42}{:>8} ms", time.as_millis())?;
        }
        let Waiting {
            listening,
            answering,
            memory,
            replays,
        } = &self.waiting;
        writeln!(f, "{:<42}{WAITERS:>8}", "waiters on a key each, in one process")?;
        writeln!(f, "  {:<40}{:>8} ms", "until all listen", listening.as_millis())?;
        writeln!(f, "  {:<40}{:>8} ms", "until all are answered", answering.as_millis())?;
        writeln!(f, "  {:<40}{replays:>8}", "answered with a replay")?;
        match memory {
            Some(memory) => {
                let each = memory / WAITERS as u64;
                writeln!(f, "  {:<40}{each:>8} bytes", "memory each, HTTP/2 stream included")
            }
            None => Ok(()),
        }
    }
}
