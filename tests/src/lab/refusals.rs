//! Requests that were refused while a fault was on that did not concern them.
//!
//! Owns the times in which one fault was on and no other, and which refusals in them count. Requests count that were sent and
//! answered within such a time, by a process that could reach all records as it began.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use reqwest::Method;
use tokio::time::{Duration, Instant, sleep, timeout};

use super::fleet::Fleet;
use super::load::{Answered, Got};
use super::plan::Plan;
use crate::Client;

/// How many records a process is asked for to see whether it can reach them: enough for every node of a cluster.
const PROBES: usize = 24;
/// How long the processes may take to get over the fault before.
const RECOVERY: Duration = Duration::from_secs(5);
/// How many of a hundred requests may be refused. A busy machine delays some beyond their deadline.
const TOLERATED: usize = 2;

/// Whom a fault does not concern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spared {
    /// One node is silent: those whose records are on the others.
    OtherNodesThan(usize),
    /// The application's pool is of no use: everybody, for records do not need it.
    PoolUsers,
    /// The line is slow for large answers: those whose answers are small.
    SmallAnswers,
}

/// A time in which one fault was on and no other.
#[derive(Debug)]
pub(super) struct Span {
    spared: Spared,
    /// The processes that had got over all faults before.
    processes: Vec<u32>,
    since: Instant,
    until: Instant,
}

/// How many requests there were, and how many of them were refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusals {
    pub(super) asked: usize,
    pub(super) refused: usize,
}

impl Span {
    /// Waits until all is well, and begins.
    pub(super) async fn begin(spared: Spared, fleet: &Fleet) -> Self {
        let recovering = fleet.processes().into_iter().map(async |(id, client)| {
            let recovered = timeout(RECOVERY, reach_all_records(&client)).await;
            recovered.is_ok().then_some(id)
        });
        let processes = join_all(recovering).await.into_iter().flatten().collect();
        let since = Instant::now();
        Self {
            spared,
            processes,
            since,
            until: since,
        }
    }

    pub(super) fn end(&mut self) {
        self.until = Instant::now();
    }

    fn includes(&self, answered: &Answered) -> bool {
        answered.asked >= self.since && answered.at <= self.until && self.processes.contains(&answered.process)
    }
}

/// Asks until every record is answered for, in a row.
async fn reach_all_records(client: &Client) {
    let mut reached = 0;
    while reached < PROBES {
        let key = format!("probe {reached}");
        let call = client.call(Method::POST, "/journaled/probe").key(&key);
        match call.try_send().await {
            Ok(answer) if answer.status.is_success() => reached += 1,
            _ => {
                reached = 0;
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Counts refusals by what they are called in the table. `owners` says of each key which node has its record.
pub(super) fn count(
    plan: &Plan,
    owners: &[usize],
    spans: &[Span],
    answers: &[Answered],
) -> BTreeMap<&'static str, Refusals> {
    let mut counts = BTreeMap::<_, Refusals>::new();
    for span in spans {
        for answered in answers.iter().filter(|answered| span.includes(answered)) {
            let kind = match span.spared {
                Spared::OtherNodesThan(silent) if owners[answered.key] == silent => SILENT,
                Spared::OtherNodesThan(_) => OTHERS,
                Spared::PoolUsers => POOL,
                Spared::SmallAnswers if plan.keys[answered.key].task.padding > 0 => LARGE,
                Spared::SmallAnswers => SMALL,
            };
            let count = counts.entry(kind).or_default();
            count.asked += 1;
            count.refused += usize::from(matches!(answered.got, Got::Unavailable));
        }
    }
    counts
}

const SILENT: &str = "one node silent, its own keys";
const OTHERS: &str = "one node silent, keys of the others";
const POOL: &str = "pool poisoned or exhausted";
const LARGE: &str = "line slow, large answers";
const SMALL: &str = "line slow, small answers";

/// What is said of refusals that should not have been.
pub(super) fn judge(seed: u64, counts: &BTreeMap<&'static str, Refusals>) -> Vec<String> {
    let forbidden = [
        (OTHERS, "a silent node costs the keys of the other nodes"),
        (POOL, "IDEM-20: a record waits for the application's pool"),
    ];
    let mut told = Vec::new();
    for (kind, what) in forbidden {
        let Refusals { asked, refused } = counts.get(kind).copied().unwrap_or_default();
        if refused * 100 > asked * TOLERATED {
            told.push(format!("seed {seed}: {what}: {refused} of {asked} requests refused"));
        }
    }
    told
}
