//! The fault lab: a service of several processes on one Redis, Redis Cluster, Postgres or file of SQLite, under load, while all of
//! them are killed, frozen and cut off.
//!
//! A round is a seeded `plan`, clients that carry out its requests (`load`), what goes wrong meanwhile (`faults`,
//! and the named points of death in `service`), a journal of every execution that outlives its process (`journal`),
//! an oracle that knows only the journal, the answers, the rows that handlers committed and the rules (`oracle`), a count
//! of those who were refused though nothing that concerned them was wrong (`refusals`), and a record of every call on the
//! backend, which the specification has to explain (`calls`). `broker` is the same for consumers of messages.
//!
//! The same seed makes the same requests and faults. How processes and threads interleave under them cannot be repeated,
//! so a seed that has failed once may have to be tried several times.

pub mod broker;
mod calls;
mod clock;
mod cluster;
mod faults;
mod fleet;
mod journal;
mod ledger;
mod load;
mod measures;
mod operator;
mod oracle;
mod plan;
pub mod pool;
mod random;
mod refusals;
mod server;
mod service;
pub mod siege;
mod sqlite;
mod stage;
mod table;

use std::path::Path;
use std::sync::Arc;

pub use self::calls::CallLog;
pub use self::journal::{Entry, Event, Journal, read};
pub use self::measures::Measures;
pub use self::plan::{Change, Size};
pub use self::server::Backend;
pub use self::service::{DIE, LEASE, Point, REQUEST, Task, routes, transacting_in_postgres, transacting_in_sqlite};
pub use self::table::Totals;

use self::load::Load;
use self::plan::Plan;
use self::stage::Stage;

/// Runs the round of a seed with the `server` at `binary`, and counts what came of it.
pub async fn round(binary: &Path, backend: Backend, seed: u64, size: Size) -> Totals {
    let plan = Arc::new(Plan::new(seed, backend, size));
    let mut stage = Stage::set(backend).await;
    let owners = stage.server.owners(&plan.keys).await;
    let fleet = stage.fleet(binary, |program| program);
    let load = Load::new(plan.clone(), fleet.clone());

    let operator = stage.operator().await;
    let ((), (), spans) = tokio::join!(load.run(), operator.run(&plan), stage.go_wrong(&fleet, &plan.faults));
    load.look_back().await;
    let entries = stage.come_to_rest().await;
    let rows = stage.server.ledger().await;

    let answers = load.answers();
    let verdict = oracle::judge(&plan, &entries, &answers, &rows);
    let refusals = refusals::count(&plan, &owners, &spans, &answers);
    let mut totals = Totals::default();
    totals.violations = refusals::judge(seed, &refusals);
    totals.count(&entries, answers.iter().map(|answered| answered.got.name()), verdict);
    totals.count_refusals(refusals);
    totals.count_histories(calls::check(&stage.recorded));
    totals
}
