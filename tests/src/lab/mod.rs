//! The fault lab: a service of several processes on one Redis, Redis Cluster, Postgres or file of SQLite, under load, while all of
//! them are killed, frozen and cut off.
//!
//! A round is a seeded `plan`, clients that carry out its requests (`load`), what goes wrong meanwhile (`faults`,
//! and the named points of death in `service`), a journal of every execution that outlives its process (`journal`),
//! an oracle that knows only the journal, the answers, the rows that handlers committed and the rules (`oracle`), a count
//! of those who were refused though nothing that concerned them was wrong (`refusals`), and a record of every call on the
//! backend, which the specification has to explain (`calls`).
//!
//! The same seed makes the same requests and faults. How processes and threads interleave under them cannot be repeated,
//! so a seed that has failed once may have to be tried several times.

mod calls;
mod clock;
mod cluster;
mod faults;
mod fleet;
mod journal;
mod ledger;
mod load;
mod measures;
mod oracle;
mod plan;
pub mod pool;
mod random;
mod refusals;
mod server;
mod service;
pub mod siege;
mod sqlite;
mod table;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

pub use self::calls::CallLog;
pub use self::journal::{Entry, Event, Journal, read};
pub use self::measures::Measures;
pub use self::plan::Size;
pub use self::server::Backend;
pub use self::service::{DIE, LEASE, Point, REQUEST, Task, routes, transacting_in_postgres, transacting_in_sqlite};
pub use self::table::Totals;

use self::faults::Scene;
use self::fleet::Fleet;
use self::load::Load;
use self::plan::{PROCESSES, Plan};
use self::server::Server;
use crate::Program;

/// Runs the round of a seed with the `server` at `binary`, and counts what came of it.
pub async fn round(binary: &Path, backend: Backend, seed: u64, size: Size) -> Totals {
    let plan = Arc::new(Plan::new(seed, backend, size));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("journal");
    let journal = Journal::open(&file);
    let recorded = folder.path().join("calls");
    let calls = CallLog::open(&recorded);
    let mut server = Server::start(backend).await;
    let owners = server.owners(&plan.keys).await;
    let program = |at| {
        let program = Program::new(binary, &server.url(at));
        let program = program.journaled(&file).recorded(&recorded).quiet();
        match server.clock(at) {
            Some(clock) => program.going_by(clock),
            None => program,
        }
    };
    let fleet = Arc::new(Fleet::start((0..PROCESSES).map(program).collect()));
    let load = Load::new(plan.clone(), fleet.clone());

    let mut scene = Scene {
        server: &mut server,
        fleet: &fleet,
        journal: &journal,
        calls: &calls,
        spans: Vec::new(),
    };
    let faults = async {
        for (rest, fault) in &plan.faults {
            sleep(*rest).await;
            fault.inject(&mut scene).await;
        }
    };
    tokio::join!(load.run(), faults);
    let spans = scene.spans;
    load.look_back().await;
    let entries = come_to_rest(&file).await;
    let rows = server.ledger().await;

    let answers = load.answers();
    let verdict = oracle::judge(&plan, &entries, &answers, &rows);
    let refusals = refusals::count(&plan, &owners, &spans, &answers);
    let mut totals = Totals::default();
    totals.violations = refusals::judge(seed, &refusals);
    totals.count(&entries, &answers, verdict, refusals);
    totals.count_histories(calls::check(&recorded));
    totals
}

/// The journal, once all handlers whose process lives have ended, or should have.
async fn come_to_rest(file: &Path) -> Vec<Entry> {
    let since = Instant::now();
    loop {
        let entries = read(file);
        let is_running = oracle::is_running(&entries);
        if !is_running || since.elapsed() > Duration::from_secs(10) {
            return entries;
        }
        sleep(Duration::from_millis(50)).await;
    }
}
