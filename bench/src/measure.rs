//! What is measured, and in which order: every variant in each round, so that what the machine does meanwhile meets all.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::load::{Keys, Load, Outcome};
use crate::processes::{Redis, Service, measure};
use crate::report::{Cell, Report, Scenario};

/// The variants, in the order of the table.
pub(crate) const VARIANTS: [&str; 5] = ["bare", "floor", "article", "memory", "redis"];

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    rounds: usize,
    /// Of one load.
    time: Duration,
    bytes: &'static [usize],
}

impl Effort {
    pub(crate) const FULL: Self = Self {
        rounds: 7,
        time: Duration::from_secs(3),
        bytes: &[200, 16 * 1024, 256 * 1024],
    };
    pub(crate) const QUICK: Self = Self {
        rounds: 3,
        time: Duration::from_millis(1500),
        bytes: &[200],
    };
}

/// A service and the server behind it.
struct Subject {
    variant: &'static str,
    service: Service,
    redis: Redis,
}

impl Subject {
    async fn start(variant: &'static str) -> Self {
        let redis = Redis::start().await;
        let service = Service::start(variant, &redis.url).await;
        Self {
            variant,
            service,
            redis,
        }
    }
}

/// Takes every measurement, prints the table and writes the report.
pub(crate) async fn all(effort: Effort) {
    let mut report = Report::default();
    let mut seed = 0;
    for &bytes in effort.bytes {
        for keys in Keys::ALL {
            let mut cells: BTreeMap<&str, Cell> = BTreeMap::new();
            for round in 0..=effort.rounds {
                for variant in VARIANTS {
                    // A service of its own a round: nothing that one round leaves behind is in the next one.
                    let subject = Subject::start(variant).await;
                    seed += 1;
                    let measured = once(&subject, keys, bytes, effort.time, seed).await;
                    // The first round warms the machine up.
                    if round > 0 {
                        cells.entry(variant).or_default().add(measured);
                    }
                }
            }
            let scenario = Scenario {
                keys: keys.name(),
                bytes,
            };
            eprintln!("{scenario}");
            report.add(scenario, cells);
        }
    }
    println!("{report}");
    report.write();
}

/// One load on one service.
async fn once(subject: &Subject, keys: Keys, bytes: usize, time: Duration, seed: u64) -> Measured {
    subject.redis.forget().await;
    let before = subject.redis.usage().await;
    let load = Load {
        address: subject.service.address,
        keys,
        bytes,
        time,
        seed,
    };
    let outcome = measure(&load).await;
    let after = subject.redis.usage().await;
    let speaks_to_redis = !["bare", "memory"].contains(&subject.variant);
    let requests = f64::from(u32::try_from(outcome.requests).unwrap_or(u32::MAX));
    Measured {
        outcome,
        processor: speaks_to_redis.then(|| (after.processor - before.processor) * 1e6 / requests),
        record: (speaks_to_redis && keys == Keys::Unique).then(|| (after.memory - before.memory) / after.keys),
    }
}

/// What one load came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) outcome: Outcome,
    /// Microseconds of Redis's processor time a request.
    pub(crate) processor: Option<f64>,
    /// Bytes of Redis's memory a record.
    pub(crate) record: Option<f64>,
}
