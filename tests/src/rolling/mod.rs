//! A rolling deploy that brings durable steps: processes of a version that knows none and of this one, on the same records.
//!
//! Owns the table. `provider` notes what either version does, `scene` is where a case plays, and `cases` are what is tried: each on
//! one Redis server, one Postgres server and files of SQLite, one after the other. `cargo xtask rolling-deploy` builds the two versions.

mod cases;
mod handover;
mod provider;
mod scene;

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;

use self::cases::Case;
pub use self::scene::Versions;
use self::scene::{Scene, Server};
use crate::in_time;

/// What came of every case.
#[derive(Debug, Default)]
pub struct Report {
    /// The results of a case, in the order of the servers. A failure says what was wrong.
    rows: Vec<(Case, Vec<Result<(), String>>)>,
}

impl Report {
    /// Whether nothing failed.
    pub fn is_good(&self) -> bool {
        self.rows.iter().all(|(_, results)| results.iter().all(Result::is_ok))
    }
}

/// Plays every case on every server.
pub async fn run(versions: Versions) -> Report {
    let servers = Server::start_all().await;
    let mut report = Report::default();
    for (number, case) in Case::ALL.into_iter().enumerate() {
        let mut results = Vec::new();
        for server in &servers {
            let scene = Scene::set(server, &versions, number).await;
            // A check that fails panics, and ends the case alone.
            let played = AssertUnwindSafe(in_time(case.play(&scene))).catch_unwind();
            results.push(played.await.map_err(|panic| reason(&*panic)));
        }
        eprintln!("{}", line(case, &results));
        report.rows.push((case, results));
    }
    report
}

fn reason(panic: &(dyn Any + Send)) -> String {
    let formatted = panic.downcast_ref::<String>().cloned();
    let text = formatted.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "it panicked".to_owned())
}

fn line(case: Case, results: &[Result<(), String>]) -> String {
    let shown = |result: &Result<(), String>| if result.is_ok() { "ok" } else { "FAILED" };
    let results: Vec<_> = results.iter().map(shown).collect();
    row(case.name(), &results)
}

fn row(first: &str, others: &[&str]) -> String {
    let others: Vec<_> = others.iter().map(|other| format!("{other:>10}")).collect();
    format!("{first:<72}{}", others.concat())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", row("case", &Server::NAMES))?;
        for (case, results) in &self.rows {
            writeln!(f, "{}", line(*case, results))?;
        }
        for (case, results) in &self.rows {
            for (server, result) in Server::NAMES.iter().zip(results) {
                if let Err(reason) = result {
                    writeln!(f, "\n{} ({server}): {reason}", case.name())?;
                }
            }
        }
        Ok(())
    }
}
