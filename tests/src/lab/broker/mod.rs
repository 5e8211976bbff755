//! The fault lab for consumers of messages: processes that run tasks for what a queue delivers at least once.
//!
//! A round is a seeded `plan`, a `queue` that does what brokers do to messages, a `listener` that consumers connect to, the
//! `consumer` in each process, and a `judge` that knows only the journal, the plan and what the queue was told. The processes, the
//! server, the faults, the journal and the check of all calls are those of the rounds of requests.

mod consumer;
mod judge;
mod listener;
mod message;
mod plan;
mod queue;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use self::consumer::consume;
use self::listener::Listener;
use self::plan::Plan;
use super::stage::Stage;
use super::{Backend, Size, Totals, calls};

/// The environment variable that names the queue to a process.
pub const BROKER: &str = "IDEM_BROKER";

/// How long a round may take to settle every message once nothing goes wrong any more; far above lease and wait.
const PATIENCE: Duration = Duration::from_mins(1);

/// Runs the round of a seed with consumers in the `server` at `binary`, and counts what came of it. There are as many messages as the
/// size has keys, and each has two consumers.
pub async fn round(binary: &Path, backend: Backend, seed: u64, size: Size) -> Totals {
    let plan = Arc::new(Plan::new(seed, backend, size));
    let mut stage = Stage::set(backend).await;
    let listener = Listener::start(&plan, &stage.journal).await;
    let address = listener.address.to_string();
    let fleet = stage.fleet(binary, |program| program.told(BROKER, &address));

    stage.go_wrong(&fleet, &plan.faults).await;
    let is_settled = listener.settle(PATIENCE).await;
    if is_settled {
        // Now that all is well, the whole stream is delivered once more.
        listener.replay();
        listener.settle(PATIENCE).await;
    }
    let entries = stage.come_to_rest().await;

    let report = listener.report();
    let verdict = judge::judge(&plan, &entries, &report);
    let mut totals = Totals::default();
    let outcomes = report.notes.iter().map(|note| note.outcome.name());
    totals.count_deliveries(&entries, outcomes, verdict.rules, verdict.counts);
    totals.count_histories(calls::check(&stage.recorded));
    totals
}
