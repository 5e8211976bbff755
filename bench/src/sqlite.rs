//! What is measured on SQLite: ours beside the lines of SQL that people write by hand, on the same file system.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use idem_axum::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use idem_axum::sqlx::{self, sqlite::SqliteSynchronous};
use idem_axum::{Idempotency, SqliteBackend};
use idem_bench::{bare, guarded};

use crate::load::{Keys, Load};
use crate::measure::{Effort, Measured, SMALL};
use crate::processes::{Service, measure};
use crate::report::Cell;
use crate::serve::key;

/// The connections of the hand-written scheme.
const POOL: u32 = 16;

/// By hand and ours, in this order.
pub(crate) const VARIANTS: [&str; 2] = ["sqlite-by-hand", "sqlite"];

/// One kind of load.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    name: &'static str,
    keys: Keys,
    clients: u64,
}

const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "claim and complete, 16 clients",
        keys: Keys::Unique,
        clients: 16,
    },
    Scenario {
        name: "replay, 16 clients",
        keys: Keys::Replayed(10_000),
        clients: 16,
    },
    Scenario {
        name: "claim and complete, 1 client",
        keys: Keys::Unique,
        clients: 1,
    },
    Scenario {
        name: "claim and complete, 64 clients",
        keys: Keys::Unique,
        clients: 64,
    },
];

/// Claims, runs, stores; no fingerprint, no fencing, no lease, and nobody deletes anything. As durable as ours.
async fn floor(State(pool): State<SqlitePool>, request: Request, next: Next) -> Response {
    let key = key(request.headers());
    let stored = sqlx::query_scalar("SELECT answer FROM floor WHERE key = ?").bind(&key);
    let stored: Option<Option<Vec<u8>>> = stored.fetch_optional(&pool).await.expect("SELECT");
    let headers = [(CONTENT_TYPE, "application/json")];
    match stored {
        Some(Some(stored)) => return (StatusCode::CREATED, headers, stored).into_response(),
        Some(None) => return StatusCode::CONFLICT.into_response(),
        None => {}
    }
    let claim = sqlx::query("INSERT INTO floor (key) VALUES (?) ON CONFLICT DO NOTHING").bind(&key);
    let claimed = claim.execute(&pool).await.expect("INSERT").rows_affected();
    if claimed == 0 {
        return StatusCode::CONFLICT.into_response();
    }
    let (parts, body) = next.run(request).await.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a body");
    let store = sqlx::query("UPDATE floor SET answer = ? WHERE key = ?").bind(&body[..]);
    store.bind(&key).execute(&pool).await.expect("UPDATE");
    Response::from_parts(parts, Body::from(body))
}

/// The hand-written variant.
pub(crate) async fn by_hand(path: &str) -> Router {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new().max_connections(POOL).connect_with(options);
    let pool = pool.await.expect("the file opens");
    let table = "CREATE TABLE floor (key TEXT PRIMARY KEY, answer BLOB, created_at INTEGER DEFAULT (unixepoch()))";
    sqlx::query(table).execute(&pool).await.expect("CREATE TABLE");
    bare().layer(middleware::from_fn_with_state(pool, floor))
}

/// The annotated variant.
pub(crate) async fn annotated(path: &str) -> Router {
    let backend = SqliteBackend::open(Path::new(path)).await;
    guarded(Idempotency::new(backend.expect("the file opens")))
}

/// Takes every measurement and prints the table.
pub(crate) async fn all(effort: Effort) {
    let mut report = Report(Vec::new());
    let mut seed = 0;
    for scenario in SCENARIOS {
        let mut cells: BTreeMap<_, Cell> = BTreeMap::new();
        for round in 0..=effort.rounds {
            for variant in VARIANTS {
                seed += 1;
                let measured = once(scenario, variant, effort, seed).await;
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

/// One load on one service, over a new file.
async fn once(scenario: Scenario, variant: &str, effort: Effort, seed: u64) -> Measured {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("bench.db").display().to_string();
    let service = Service::start(variant, &file).await;
    let load = Load {
        address: service.address,
        keys: scenario.keys,
        connections: scenario.clients,
        bytes: SMALL,
        time: effort.time,
        seed,
    };
    Measured {
        outcome: measure(&load).await,
        processor: None,
        record: None,
    }
}

/// Every measurement of one run.
struct Report(Vec<(Scenario, BTreeMap<&'static str, Cell>)>);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (requests, range) = ("req/s", "range");
        writeln!(f, "{:<48}{requests:>8}{range:>16}{:>9}{:>9}", "", "p50 us", "p99 us")?;
        for (scenario, cells) in &self.0 {
            for variant in VARIANTS {
                let cell = &cells[variant];
                let (least, most) = cell.range();
                writeln!(
                    f,
                    "{:<32}{variant:<16}{:>8.0}{:>16}{:>9.0}{:>9.0}",
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
            let [by_hand, ours] = VARIANTS.map(|variant| cells[variant].rate());
            writeln!(
                f,
                "{:<40}{:>6.2}",
                format!("{}, ours / by hand", scenario.name),
                ours / by_hand
            )?;
        }
        Ok(())
    }
}
