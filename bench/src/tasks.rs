//! Measures tasks without HTTP: a task beside the bare function, and beside Redis commands written by hand.
//!
//! Client and function share a process, so that only what runs them differs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use idem_task::{Engine, MemoryBackend, RedisBackend, Refused, TaskExt as _};
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;

use crate::load::Outcome;
use crate::measure::{Effort, Measured, SMALL};
use crate::processes::Redis;
use crate::report::Cell;
use crate::serve::connection;

const DAY: Duration = Duration::from_hours(24);

/// How many messages have a result before replays are measured.
const RESULTS: u64 = 10_000;

/// Bytes in memory for the records of a second.
const ROOM: usize = 2 << 30;

const VARIANTS: [&str; 4] = ["bare", "by hand", "memory", "redis"];

/// One kind of load.
#[derive(Clone, Copy)]
struct Scenario {
    name: &'static str,
    at_once: usize,
    /// How long the function works.
    work: Duration,
    is_replayed: bool,
}

const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "first deliveries, 64 at once",
        at_once: 64,
        work: Duration::ZERO,
        is_replayed: false,
    },
    Scenario {
        name: "later deliveries, 64 at once",
        at_once: 64,
        work: Duration::ZERO,
        is_replayed: true,
    },
    Scenario {
        name: "first deliveries, one at a time",
        at_once: 1,
        work: Duration::ZERO,
        is_replayed: false,
    },
    Scenario {
        name: "5 ms of work, 64 at once",
        at_once: 64,
        work: Duration::from_millis(5),
        is_replayed: false,
    },
];

/// The function: it returns as many bytes as a small answer of a handler has.
async fn work(number: u64, time: Duration) -> String {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
    format!("{number:0SMALL$}")
}

/// What runs the function.
#[derive(Clone)]
enum Subject {
    Bare,
    ByHand(MultiplexedConnection),
    Task(Engine),
}

impl Subject {
    async fn of(variant: &str, redis: &Redis) -> Self {
        match variant {
            "bare" => Self::Bare,
            "by hand" => Self::ByHand(connection(&redis.url).await),
            "memory" => Self::Task(Engine::new(MemoryBackend::new().with_max_bytes(ROOM))),
            "redis" => {
                let backend = RedisBackend::connect(&redis.url).await;
                Self::Task(Engine::new(backend.expect("the server answers")))
            }
            _ => panic!("no such variant: {variant}"),
        }
    }

    async fn deliver(&self, number: u64, time: Duration) -> String {
        match self {
            Self::Bare => work(number, time).await,
            Self::ByHand(redis) => by_hand(redis.clone(), number, time).await,
            Self::Task(engine) => {
                let task = engine.task("work").global().key(&number).ttl(DAY);
                let result = task.run(move |_| async move { Ok::<_, Refused>(work(number, time).await) });
                result.await.expect("no message comes twice at the same time")
            }
        }
    }
}

/// The least there is to do: claim, work, store; no fencing, no lease, and nobody waits.
async fn by_hand(mut redis: MultiplexedConnection, number: u64, time: Duration) -> String {
    let (key, day) = (format!("work:{number}"), DAY.as_secs());
    let mut claim = redis::cmd("SET");
    claim.arg(&key).arg("").arg("NX").arg("GET").arg("EX").arg(day);
    let held: Option<String> = claim.query_async(&mut redis).await.expect("SET");
    if let Some(held) = held {
        return held;
    }
    let result = work(number, time).await;
    let mut store = redis::cmd("SET");
    store.arg(&key).arg(&result).arg("EX").arg(day);
    store.exec_async(&mut redis).await.expect("SET");
    result
}

/// Takes every measurement and prints the table.
pub(crate) async fn all(effort: Effort) {
    let mut report = Report(Vec::new());
    for scenario in SCENARIOS {
        let mut cells: BTreeMap<_, Cell> = BTreeMap::new();
        for round in 0..=effort.rounds {
            for variant in VARIANTS {
                let measured = once(scenario, variant, effort).await;
                // The first round warms the machine up.
                if round > 0 {
                    cells.entry(variant).or_default().add(measured);
                }
            }
        }
        eprintln!("{}", scenario.name);
        report.0.push((scenario, cells));
    }
    println!("{report}");
}

/// One load on one subject, over an empty server.
async fn once(scenario: Scenario, variant: &str, effort: Effort) -> Measured {
    let redis = Redis::start().await;
    let subject = Subject::of(variant, &redis).await;
    let numbers = Arc::new(AtomicU64::new(0));
    if scenario.is_replayed {
        for number in 0..RESULTS {
            subject.deliver(number, Duration::ZERO).await;
        }
    }
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..scenario.at_once {
        let (subject, numbers) = (subject.clone(), numbers.clone());
        workers.spawn(async move {
            let mut times = Vec::new();
            while begun.elapsed() < effort.time {
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                let number = if scenario.is_replayed { number % RESULTS } else { number };
                let delivered = Instant::now();
                let result = subject.deliver(number, scenario.work).await;
                assert_eq!(result.len(), SMALL);
                times.push(delivered.elapsed().as_secs_f64() * 1e6);
            }
            times
        });
    }
    let mut times = workers.join_all().await.concat();
    let elapsed = begun.elapsed();
    times.sort_by(f64::total_cmp);
    Measured {
        outcome: outcome(&times, elapsed),
        processor: None,
        record: None,
    }
}

fn outcome(times: &[f64], elapsed: Duration) -> Outcome {
    let percentile = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or(f64::NAN);
    let requests = u32::try_from(times.len()).unwrap_or(u32::MAX);
    Outcome {
        requests: requests.into(),
        rate: f64::from(requests) / elapsed.as_secs_f64(),
        p50: percentile(50),
        p99: percentile(99),
    }
}

/// Every measurement of one run.
struct Report(Vec<(Scenario, BTreeMap<&'static str, Cell>)>);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, range) = ("tasks/s", "range");
        writeln!(f, "{:<42}{rate:>9}{range:>18}{:>9}{:>9}", "", "p50 us", "p99 us")?;
        for (scenario, cells) in &self.0 {
            for variant in VARIANTS {
                let cell = &cells[variant];
                let (least, most) = cell.range();
                writeln!(
                    f,
                    "{:<33}{variant:<9}{:>9.0}{:>18}{:>9.1}{:>9.1}",
                    scenario.name,
                    cell.rate(),
                    format!("{least:.0}-{most:.0}"),
                    cell.p50(),
                    cell.p99(),
                )?;
            }
        }
        writeln!(f)?;
        for (scenario, cells) in &self.0 {
            for (ours, others) in [("redis", "by hand"), ("redis", "bare"), ("memory", "bare")] {
                let (ours_rate, others_rate) = (cells[ours].rate(), cells[others].rate());
                let name = format!("{}, {ours} / {others}", scenario.name);
                writeln!(f, "{name:<64}{:>7.3}", ours_rate / others_rate)?;
            }
            if scenario.at_once == 1 {
                let added = |variant| cells[variant].p50() - cells["bare"].p50();
                let name = format!("{}, time added to bare (p50), redis / by hand", scenario.name);
                writeln!(f, "{name:<64}{:>7.3}", added("redis") / added("by hand"))?;
            }
        }
        Ok(())
    }
}
