//! The table, the ratios, and the files they are written to.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::figures::Figures;
use crate::load::{CONNECTIONS, Keys};
use crate::measure::{Measured, SMALL, Scenario, VARIANTS};
use crate::plot;

/// Where reports go, from the root of the workspace.
pub(crate) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench");

/// All rounds of one variant under one kind of load.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Cell {
    /// Requests a second.
    rate: Series,
    /// Microseconds.
    p50: Series,
    p99: Series,
    /// Microseconds of Redis's processor time a request.
    redis_time: Series,
    /// Bytes of Redis's memory a record.
    redis_memory: Series,
}

impl Cell {
    pub(crate) fn add(&mut self, measured: Measured) {
        self.rate.0.push(measured.outcome.rate);
        self.p50.0.push(measured.outcome.p50);
        self.p99.0.push(measured.outcome.p99);
        self.redis_time.0.extend(measured.processor);
        self.redis_memory.0.extend(measured.record);
    }

    pub(crate) fn rate(&self) -> f64 {
        self.rate.median()
    }

    pub(crate) fn range(&self) -> (f64, f64) {
        self.rate.range()
    }

    pub(crate) fn p50(&self) -> f64 {
        self.p50.median()
    }

    pub(crate) fn p99(&self) -> f64 {
        self.p99.median()
    }
}

/// One figure of each round.
#[derive(Clone, Debug, Default, Serialize)]
struct Series(Vec<f64>);

impl Series {
    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    fn median(&self) -> f64 {
        let sorted = self.sorted();
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn range(&self) -> (f64, f64) {
        let sorted = self.sorted();
        let of = |end: Option<&f64>| end.copied().unwrap_or(f64::NAN);
        (of(sorted.first()), of(sorted.last()))
    }
}

/// Every measurement of one run.
#[derive(Debug)]
pub(crate) struct Report {
    figures: Figures,
    scenarios: Vec<(Scenario, BTreeMap<&'static str, Cell>)>,
}

/// A figure that has to be reached.
struct Ratio {
    name: &'static str,
    aim: &'static str,
    value: f64,
}

impl Report {
    pub(crate) fn new(figures: Figures) -> Self {
        let scenarios = Vec::new();
        Self { figures, scenarios }
    }

    pub(crate) fn add(&mut self, scenario: Scenario, cells: BTreeMap<&'static str, Cell>) {
        self.scenarios.push((scenario, cells));
    }

    pub(crate) fn scenarios(&self) -> impl Iterator<Item = (&Scenario, &BTreeMap<&'static str, Cell>)> {
        self.scenarios.iter().map(|(scenario, cells)| (scenario, cells))
    }

    /// What a variant came to under one kind of load, where it was measured.
    fn cell(&self, keys: Keys, bytes: usize, connections: u64, variant: &str) -> Option<&Cell> {
        let is_it =
            |scenario: &Scenario| (scenario.keys, scenario.bytes, scenario.connections) == (keys, bytes, connections);
        let (_, cells) = self.scenarios.iter().find(|(scenario, _)| is_it(scenario))?;
        cells.get(variant)
    }

    /// The figures of the aims, of what was measured.
    fn ratios(&self) -> Vec<Ratio> {
        let rate = |keys, bytes, variant| {
            let cell = self.cell(keys, bytes, CONNECTIONS, variant);
            cell.map_or(f64::NAN, Cell::rate)
        };
        let over_floor = |keys, bytes| rate(keys, bytes, "redis") / rate(keys, bytes, "floor");
        let of_redis = |variant, figure: fn(&Cell) -> f64| {
            let cell = self.cell(Keys::Unique, SMALL, CONNECTIONS, variant);
            cell.map_or(f64::NAN, figure)
        };
        let time = |cell: &Cell| cell.redis_time.median();
        let memory = |cell: &Cell| cell.redis_memory.median();
        let alone = |variant| {
            let Scenario {
                keys,
                bytes,
                connections,
                ..
            } = Scenario::ALONE;
            self.cell(keys, bytes, connections, variant).map_or(f64::NAN, Cell::p50)
        };
        let added = (alone("redis") - alone("bare")) / (alone("floor") - alone("bare"));
        let (unique, one, many) = (Keys::Unique, Keys::Replayed(1), Keys::Replayed(10_000));
        let ratio = |name, aim, value| Ratio { name, aim, value };
        let all = [
            ratio("Redis / floor, unique keys", ">= 0.95", over_floor(unique, SMALL)),
            ratio("Redis / floor, replays of one key", ">= 1.00", over_floor(one, SMALL)),
            ratio(
                "Redis / floor, replays of 10,000 keys",
                ">= 0.95",
                over_floor(many, SMALL),
            ),
            ratio(
                "Redis / floor, unique keys, 16 KiB",
                ">= 0.85",
                over_floor(unique, 16 << 10),
            ),
            ratio(
                "Redis / floor, unique keys, 256 KiB",
                ">= 0.80",
                over_floor(unique, 256 << 10),
            ),
            ratio(
                "memory / bare, unique keys",
                ">= 0.85",
                rate(unique, SMALL, "memory") / rate(unique, SMALL, "bare"),
            ),
            ratio("latency added to bare, one at a time, Redis / floor", "<= 1.10", added),
            ratio("Redis commands a first request", "exactly 2", self.figures.commands[0]),
            ratio("Redis commands a replay", "exactly 1", self.figures.commands[1]),
            ratio(
                "Redis server time a first request / floor's",
                "<= 1.5",
                of_redis("redis", time) / of_redis("floor", time),
            ),
            ratio(
                "Redis memory a record with a 200-byte JSON answer",
                "<= 565 B",
                of_redis("redis", memory),
            ),
            ratio(
                "allocations of ours beyond bare, first request on memory",
                "<= 19.7",
                self.figures.allocations_beyond_bare(),
            ),
            ratio(
                "waiter wake-up after completion, p50, other process, ms",
                "<= 2",
                self.figures.wake_up,
            ),
        ];
        all.into_iter().filter(|ratio| !ratio.value.is_nan()).collect()
    }

    /// Writes `report.json` and `report.svg`.
    pub(crate) fn write(&self) {
        let ratios: serde_json::Map<_, _> = self
            .ratios()
            .into_iter()
            .map(|Ratio { name, value, .. }| (name.to_owned(), value.into()))
            .collect();
        let scenarios: serde_json::Map<_, _> = self
            .scenarios()
            .map(|(scenario, cells)| (scenario.to_string(), serde_json::json!(cells)))
            .collect();
        let report = serde_json::json!({ "ratios": ratios, "figures": self.figures, "scenarios": scenarios });
        let folder = Path::new(FOLDER);
        fs::create_dir_all(folder).expect("target can be written to");
        fs::write(folder.join("report.json"), format!("{report:#}")).expect("target can be written to");
        fs::write(folder.join("report.svg"), plot::svg(self)).expect("target can be written to");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<34}{:<9}{:>9}{:>19}{:>9}{:>9}{:>9}{:>9}",
            "keys, bytes", "", "req/s", "range", "p50 us", "p99 us", "Redis us", "B/record"
        )?;
        for (scenario, cells) in self.scenarios() {
            for variant in VARIANTS {
                let Some(cell) = cells.get(variant) else { continue };
                let (least, most) = cell.range();
                let range = format!("{least:.0}-{most:.0}");
                write!(
                    f,
                    "{:<34}{variant:<9}{:>9.0}{range:>19}{:>9.0}{:>9.0}",
                    scenario.to_string(),
                    cell.rate(),
                    cell.p50(),
                    cell.p99(),
                )?;
                for series in [&cell.redis_time, &cell.redis_memory] {
                    if series.0.is_empty() {
                        write!(f, "{:>9}", "")?;
                    } else {
                        write!(f, "{:>9.1}", series.median())?;
                    }
                }
                writeln!(f)?;
            }
        }
        writeln!(f)?;
        for Ratio { name, aim, value } in self.ratios() {
            writeln!(f, "{name:<58}{value:>9.2}   {aim}")?;
        }
        Ok(())
    }
}
