//! What is measured on Postgres: ours beside hand-written SQL, and beside itself while expired rows are deleted.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;
use std::time::Duration;

use idem_tests::PostgresServer;

use crate::load::{CONNECTIONS, Keys, Load};
use crate::measure::{Effort, Measured, SMALL};
use crate::processes::{Service, measure};
use crate::report::{Cell, FOLDER};

/// How many expired rows there are at first where they are deleted, and where they are left: more than are deleted in the
/// time of a load.
const EXPIRED: u32 = 400_000;

/// For how long a service is under load before anything is measured.
const WARMING: Duration = Duration::from_secs(2);

/// One kind of load, and who is under it.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    name: &'static str,
    keys: Keys,
    variants: [&'static str; 2],
    expired: u32,
}

const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "claim and complete",
        keys: Keys::Unique,
        variants: ["sql", "postgres"],
        expired: 0,
    },
    Scenario {
        name: "the same, 64 connections",
        keys: Keys::Unique,
        variants: ["sql-wide", "postgres-wide"],
        expired: 0,
    },
    Scenario {
        name: "replay",
        keys: Keys::Replayed(10_000),
        variants: ["sql", "postgres"],
        expired: 0,
    },
    Scenario {
        name: "beside expired rows",
        keys: Keys::Unique,
        variants: ["postgres", "swept"],
        expired: EXPIRED,
    },
];

/// What came of a scenario.
struct Line {
    scenario: Scenario,
    cells: BTreeMap<&'static str, Cell>,
    /// How many rows the sweeper deleted, in each round.
    swept: Vec<i64>,
}

/// Takes every measurement, prints the table and writes the report.
pub(crate) async fn all(effort: Effort) {
    let server = PostgresServer::start().await;
    let mut lines = Vec::new();
    let mut seed = 0;
    for scenario in SCENARIOS {
        let mut line = Line {
            scenario,
            cells: BTreeMap::new(),
            swept: Vec::new(),
        };
        for round in 0..=effort.rounds {
            for variant in scenario.variants {
                seed += 1;
                let (measured, swept) = once(&server, scenario, variant, effort, seed).await;
                // The first round warms the machine up.
                if round > 0 {
                    line.cells.entry(variant).or_default().add(measured);
                    line.swept.extend((variant == "swept").then_some(swept));
                }
            }
        }
        eprintln!("{}", scenario.name);
        lines.push(line);
    }
    let report = Report(lines);
    println!("{report}");
    report.write();
}

/// One load on one service, over tables that have nothing in them but what has expired; and how many of those rows are
/// gone afterwards.
async fn once(
    server: &PostgresServer,
    scenario: Scenario,
    variant: &str,
    effort: Effort,
    seed: u64,
) -> (Measured, i64) {
    server
        .execute("DROP TABLE IF EXISTS floor, idem_records, idem_records_leases, idem_records_migrations")
        .await;
    // The table of its own start; it begins to delete once there is something to delete.
    let service = Service::start(variant, &server.url()).await;
    let load = Load {
        address: service.address,
        keys: scenario.keys,
        connections: CONNECTIONS,
        bytes: SMALL,
        time: effort.time,
        seed,
    };
    // Opens the connections, of which each is a process of the server that has everything to learn.
    let warming = Load {
        time: WARMING,
        seed: seed + 1_000_000,
        ..load
    };
    measure(&warming).await;
    if scenario.expired > 0 {
        server.execute(&expired_rows(scenario.expired)).await;
        server.execute("ANALYZE idem_records").await;
    }
    server.execute("CHECKPOINT").await;
    let left = "SELECT count(*) FROM idem_records WHERE key LIKE 'expired %'";
    let before: i64 = match scenario.expired {
        0 => 0,
        _ => server.query(left).await,
    };
    let outcome = measure(&load).await;
    let after: i64 = match scenario.expired {
        0 => 0,
        _ => server.query(left).await,
    };
    let measured = Measured {
        outcome,
        processor: None,
        record: None,
    };
    (measured, before - after)
}

/// Completed records of a 200-byte answer whose time is over.
fn expired_rows(count: u32) -> String {
    format!(
        "INSERT INTO idem_records \
         (id, key, state, token, attempt, fingerprint, lease_ms, ttl_ms, lease_until, expires_at, sweep_at, payload) \
         SELECT sha256(number::text::bytea), 'expired ' || number, 2, '\\x00', 1, '\\x00', 1, 1, now(), \
         now() - number * interval '1 millisecond', now() - number * interval '1 millisecond', decode(repeat('00', 300), 'hex') \
         FROM generate_series(1, {count}) number"
    )
}

/// Every measurement of one run.
struct Report(Vec<Line>);

impl Report {
    /// By how much the second variant of each scenario is faster than the first.
    fn ratios(&self) -> [(&'static str, &'static str, f64); 4] {
        let ratio = |at: usize| {
            let line = &self.0[at];
            let [under, over] = line.scenario.variants.map(|variant| line.cells[variant].rate());
            over / under
        };
        [
            ("claim and complete, ours / by hand", ">= 0.90", ratio(0)),
            ("the same, 64 connections each", ">= 0.90", ratio(1)),
            ("replay, ours / by hand", ">= 1.00", ratio(2)),
            ("requests, while swept / not swept", ">= 0.90", ratio(3)),
        ]
    }

    /// Writes `postgres.json`.
    fn write(&self) {
        let ratios = self.ratios().map(|(name, _, value)| (name.to_owned(), value.into()));
        let ratios: serde_json::Map<_, _> = ratios.into_iter().collect();
        let scenario = |line: &Line| {
            let figures = serde_json::json!({ "variants": line.cells, "swept": line.swept });
            (line.scenario.name.to_owned(), figures)
        };
        let scenarios: serde_json::Map<_, _> = self.0.iter().map(scenario).collect();
        let report = serde_json::json!({ "ratios": ratios, "scenarios": scenarios });
        fs::create_dir_all(FOLDER).expect("target can be written to");
        let file = Path::new(FOLDER).join("postgres.json");
        fs::write(file, format!("{report:#}")).expect("target can be written to");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<26}{:<14}{:>8}{:>16}{:>9}{:>9}{:>14}",
            "", "", "req/s", "range", "p50 us", "p99 us", "rows deleted"
        )?;
        for line in &self.0 {
            for variant in line.scenario.variants {
                let cell = &line.cells[variant];
                let (least, most) = cell.range();
                let mut swept = String::new();
                if variant == "swept" {
                    let mut rows = line.swept.clone();
                    rows.sort_unstable();
                    write!(swept, "{}", rows[rows.len() / 2])?;
                }
                writeln!(
                    f,
                    "{:<26}{variant:<14}{:>8.0}{:>16}{:>9.0}{:>9.0}{swept:>14}",
                    line.scenario.name,
                    cell.rate(),
                    format!("{least:.0}-{most:.0}"),
                    cell.p50(),
                    cell.p99(),
                )?;
            }
        }
        writeln!(f)?;
        for (name, aim, value) in self.ratios() {
            writeln!(f, "{name:<40}{value:>6.2}   {aim}")?;
        }
        Ok(())
    }
}
