//! The fault lab: a service of several processes on one Redis or Postgres, under load, while both are killed, frozen and cut
//! off.
//!
//! A round is a seeded `plan`, clients that carry out its requests (`load`), what goes wrong meanwhile (`faults`,
//! and the named points of death in `service`), a journal of every execution that outlives its process (`journal`),
//! and an oracle that knows only the journal, the answers and the rules (`oracle`).
//!
//! The same seed makes the same requests and faults. How processes and threads interleave under them cannot be repeated,
//! so a seed that has failed once may have to be tried several times.

mod faults;
mod fleet;
mod journal;
mod load;
mod measures;
mod oracle;
mod plan;
mod random;
mod server;
mod service;
mod table;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

pub use self::journal::{Entry, Event, Journal, read};
pub use self::measures::Measures;
pub use self::plan::Size;
pub use self::server::Backend;
pub use self::service::{DIE, LEASE, Point, REQUEST, Task, routes};
pub use self::table::Totals;

use self::fleet::Fleet;
use self::load::Load;
use self::plan::{PROCESSES, Plan};
use self::server::Server;
use crate::{Program, Proxy};

/// Runs the round of a seed with the `server` at `binary`, and counts what came of it.
pub async fn round(binary: &Path, backend: Backend, seed: u64, size: Size) -> Totals {
    let plan = Arc::new(Plan::new(seed, backend, size));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("journal");
    let journal = Journal::open(&file);
    let mut server = Server::start(backend).await;
    let proxy = Proxy::start(server.address()).await;
    // One of them reaches it without the proxy, so that not all are cut off at once.
    let url = |at| match at {
        0 => server.url(),
        _ => server.url_behind(&proxy),
    };
    let program = |at| Program::new(binary, &url(at)).journaled(&file).quiet();
    let fleet = Arc::new(Fleet::start((0..PROCESSES).map(program).collect()));
    let load = Load::new(plan.clone(), fleet.clone());

    let faults = async {
        for (rest, fault) in &plan.faults {
            sleep(*rest).await;
            fault.inject(&mut server, &proxy, &fleet, &journal).await;
        }
    };
    tokio::join!(load.run(), faults);
    load.look_back().await;
    let entries = come_to_rest(&file).await;

    let answers = load.answers();
    let verdict = oracle::judge(&plan, &entries, &answers);
    let mut totals = Totals::default();
    totals.count(&entries, &answers, verdict);
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
