//! The table, the ratios, and the files they are written to.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::figures::Figures;
use crate::measure::{Measured, VARIANTS};
use crate::plot;

/// Where reports go, from the root of the workspace.
pub(crate) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench");

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scenario {
    pub(crate) keys: &'static str,
    pub(crate) bytes: usize,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} B", self.keys, self.bytes)
    }
}

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

    /// The cells of one kind of load with the smallest bodies.
    fn cell(&self, keys: &str, variant: &str) -> Option<&Cell> {
        let (_, cells) = self.scenarios.iter().find(|(scenario, _)| scenario.keys == keys)?;
        cells.get(variant)
    }

    /// The figures of the aims, from the smallest bodies.
    fn ratios(&self) -> Vec<Ratio> {
        let of =
            |keys: &str, variant: &str, figure: fn(&Cell) -> f64| self.cell(keys, variant).map_or(f64::NAN, figure);
        let rate = |keys: &str, over: &str, under: &str| of(keys, over, Cell::rate) / of(keys, under, Cell::rate);
        let time = |cell: &Cell| cell.redis_time.median();
        let memory = |cell: &Cell| cell.redis_memory.median();
        let ratio = |name, aim, value| Ratio { name, aim, value };
        vec![
            ratio(
                "ours on Redis / floor, unique keys",
                ">= 0.90",
                rate("unique", "redis", "floor"),
            ),
            ratio(
                "ours on Redis / floor, replays",
                ">= 1.00",
                rate("replay-10000", "redis", "floor"),
            ),
            ratio(
                "ours on Redis / article, unique keys",
                ">= 1.3",
                rate("unique", "redis", "article"),
            ),
            ratio(
                "ours on memory / bare, unique keys",
                ">= 0.85",
                rate("unique", "memory", "bare"),
            ),
            ratio("Redis commands a first request", "exactly 2", self.figures.commands[0]),
            ratio("Redis commands a replay", "exactly 1", self.figures.commands[1]),
            ratio(
                "Redis server time a first request / floor's",
                "<= 1.5",
                of("unique", "redis", time) / of("unique", "floor", time),
            ),
            ratio(
                "Redis memory a record with a 200-byte JSON answer",
                "<= 565 B",
                of("unique", "redis", memory),
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
        ]
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
            "{:<22}{:<9}{:>9}{:>19}{:>9}{:>9}{:>9}{:>9}",
            "keys, bytes", "", "req/s", "range", "p50 us", "p99 us", "Redis us", "B/record"
        )?;
        for (scenario, cells) in self.scenarios() {
            for variant in VARIANTS {
                let Some(cell) = cells.get(variant) else { continue };
                let (least, most) = cell.range();
                let range = format!("{least:.0}-{most:.0}");
                write!(
                    f,
                    "{:<22}{variant:<9}{:>9.0}{range:>19}{:>9.0}{:>9.0}",
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
