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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::plan::Size;
    use crate::lab::server::Backend;

    const MILLI: Duration = Duration::from_millis(1);

    /// A plan whose first key has a small answer, and a span of ten milliseconds in the midst of which process 1 answers.
    fn spanned(spared: Spared) -> (Plan, Span) {
        let size = Size { keys: 40, span: MILLI };
        let mut plan = Plan::new(0, Backend::Cluster, size);
        plan.keys.sort_by_key(|key| key.task.padding);
        let since = Instant::now();
        let span = Span {
            spared,
            processes: vec![1],
            since,
            until: since + 10 * MILLI,
        };
        (plan, span)
    }

    fn answered(span: &Span, key: usize, got: Got) -> Answered {
        Answered {
            key,
            request: String::new(),
            is_probe: false,
            got,
            process: 1,
            asked: span.since + MILLI,
            at: span.since + 2 * MILLI,
        }
    }

    fn counts(spared: Spared, answers: impl Fn(&Span) -> Vec<Answered>) -> Vec<(&'static str, usize, usize)> {
        let (plan, span) = spanned(spared);
        let answers = answers(&span);
        // The first key is on the first node, and all others are on the second.
        let owners: Vec<_> = (0..plan.keys.len()).map(|key| key.min(1)).collect();
        let counts = count(&plan, &owners, &[span], &answers);
        counts
            .into_iter()
            .map(|(kind, count)| (kind, count.asked, count.refused))
            .collect()
    }

    #[test]
    fn only_what_was_asked_and_answered_within_a_span_by_a_process_that_was_well_counts() {
        let counted = counts(Spared::PoolUsers, |span| {
            let mut answers = [(); 5].map(|()| answered(span, 0, Got::Unavailable));
            answers[1].asked = span.since - MILLI;
            answers[2].at = span.until + MILLI;
            answers[3].process = 2;
            answers[4].got = Got::InFlight;
            answers.into()
        });
        assert_eq!(counted, [(POOL, 2, 1)]);
    }

    #[test]
    fn keys_of_a_silent_node_and_of_others_are_counted_apart_and_so_are_small_and_large_answers() {
        let both = |span: &Span| [0, 1, 39].map(|key| answered(span, key, Got::Unavailable)).into();
        assert_eq!(
            counts(Spared::OtherNodesThan(0), both),
            [(SILENT, 1, 1), (OTHERS, 2, 2)]
        );
        assert_eq!(counts(Spared::SmallAnswers, both), [(LARGE, 1, 1), (SMALL, 2, 2)]);
    }

    #[test]
    fn refusals_of_those_whom_a_fault_does_not_concern_are_a_violation_beyond_two_of_a_hundred() {
        for (kind, asked, refused, violations) in [
            (OTHERS, 100, 3, 1),
            (OTHERS, 100, 2, 0),
            (POOL, 10, 1, 1),
            (POOL, 0, 0, 0),
            (SILENT, 10, 10, 0),
            (SMALL, 10, 10, 0),
            (LARGE, 10, 10, 0),
        ] {
            let counts = BTreeMap::from([(kind, Refusals { asked, refused })]);
            assert_eq!(judge(0, &counts).len(), violations, "{kind}: {refused} of {asked}");
        }
    }
}
