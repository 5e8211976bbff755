//! What is measured, and in which order: every variant in each round, so that what the machine does meanwhile meets all.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::figures::Figures;
use crate::load::{CONNECTIONS, Keys, Load, Outcome};
use crate::processes::{Redis, Service, measure};
use crate::report::{Cell, Report};

/// The variants, in the order of the table.
pub(crate) const VARIANTS: [&str; 5] = ["bare", "floor", "article", "memory", "redis"];

/// How long, how often and what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// Of one load.
    pub(crate) time: Duration,
    pub(crate) scenarios: &'static [Scenario],
}

impl Effort {
    /// Ten minutes or so, for nobody runs what takes longer.
    pub(crate) const FULL: Self = Self {
        rounds: 7,
        time: Duration::from_secs(1),
        scenarios: &[
            Scenario::small(Keys::Unique),
            Scenario::small(Keys::Replayed(1)),
            Scenario::small(Keys::Replayed(10_000)),
            Scenario::small(Keys::Mixed),
            Scenario::ALONE,
            Scenario::large(Keys::Unique, 16 * 1024),
            Scenario::large(Keys::Replayed(1), 16 * 1024),
            Scenario::large(Keys::Unique, 256 * 1024),
            Scenario::large(Keys::Replayed(1), 256 * 1024),
        ],
    };
    pub(crate) const QUICK: Self = Self {
        rounds: 3,
        time: Duration::from_millis(800),
        scenarios: &[
            Scenario::small(Keys::Unique),
            Scenario::small(Keys::Replayed(1)),
            Scenario::small(Keys::Replayed(10_000)),
            Scenario::small(Keys::Mixed),
        ],
    };
}

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) keys: Keys,
    pub(crate) bytes: usize,
    pub(crate) connections: u64,
    pub(crate) variants: &'static [&'static str],
}

/// Bytes of a small body.
pub(crate) const SMALL: usize = 200;

impl Scenario {
    /// One request at a time, for what one costs in time.
    pub(crate) const ALONE: Self = Self {
        connections: 1,
        variants: &["bare", "floor", "redis"],
        ..Self::small(Keys::Unique)
    };

    const fn small(keys: Keys) -> Self {
        Self {
            keys,
            bytes: SMALL,
            connections: CONNECTIONS,
            variants: &VARIANTS,
        }
    }

    const fn large(keys: Keys, bytes: usize) -> Self {
        Self {
            bytes,
            variants: &["floor", "redis"],
            ..Self::small(keys)
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} B", self.keys.name(), self.bytes)?;
        match self.connections {
            CONNECTIONS => Ok(()),
            connections => write!(f, ", {connections} at a time"),
        }
    }
}

/// A service and the server behind it.
pub(crate) struct Subject {
    pub(crate) variant: &'static str,
    pub(crate) service: Service,
    pub(crate) redis: Redis,
}

impl Subject {
    pub(crate) async fn start(variant: &'static str) -> Self {
        Self::start_with(variant, None).await
    }

    /// On so many threads.
    pub(crate) async fn start_with(variant: &'static str, threads: Option<u32>) -> Self {
        let redis = Redis::start().await;
        let service = Service::start_with(variant, &redis.url, threads).await;
        Self {
            variant,
            service,
            redis,
        }
    }
}

/// Takes every measurement, prints the table and writes the report.
pub(crate) async fn all(effort: Effort) {
    let mut report = Report::new(Figures::take().await);
    let mut seed = 0;
    for &scenario in effort.scenarios {
        let mut cells: BTreeMap<&str, Cell> = BTreeMap::new();
        for round in 0..=effort.rounds {
            for &variant in scenario.variants {
                // A service of its own a round: nothing that one round leaves behind is in the next one.
                let subject = Subject::start(variant).await;
                seed += 1;
                let load = Load {
                    address: subject.service.address,
                    keys: scenario.keys,
                    connections: scenario.connections,
                    bytes: scenario.bytes,
                    time: effort.time,
                    seed,
                };
                let measured = once(&subject, load).await;
                // The first round warms the machine up.
                if round > 0 {
                    cells.entry(variant).or_default().add(measured);
                }
            }
        }
        eprintln!("{scenario}");
        report.add(scenario, cells);
    }
    println!("{report}");
    report.write();
}

/// One load on one service.
pub(crate) async fn once(subject: &Subject, load: Load) -> Measured {
    let keys = load.keys;
    let before = subject.redis.usage().await;
    let outcome = measure(&load).await;
    let after = subject.redis.usage().await;
    let speaks_to_redis = !["bare", "memory"].contains(&subject.variant);
    let requests = f64::from(u32::try_from(outcome.requests).unwrap_or(u32::MAX));
    Measured {
        outcome,
        processor: speaks_to_redis.then(|| (after.processor - before.processor) * 1e6 / requests),
        record: (speaks_to_redis && keys == Keys::Unique)
            .then(|| (after.memory - before.memory) / (after.keys - before.keys)),
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
