//! What will be asked and what will go wrong, from a seed.
//!
//! Owns every choice, so that the same seed makes the same requests and the same faults at the same times. How the
//! threads of processes interleave under them is nobody's choice, and no seed repeats it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::faults::Fault;
use super::random::Random;
use super::server::Backend;
use super::service::{LEASE, Point, Task};

/// How many processes there are at a time.
pub(super) const PROCESSES: usize = 3;

/// How many bytes large answers have besides.
const PADDINGS: [usize; 4] = [100_000, 500_000, 1_000_000, 3_000_000];

/// How long a handler may take whose transaction is the one writer of a file meanwhile, in milliseconds.
const WRITING: u64 = 50;

/// One round of the lab.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) seed: u64,
    /// Whether no fault loses what is recorded; then nothing runs again but for a death.
    pub(super) keeps: bool,
    pub(super) keys: Vec<Key>,
    /// Each with how long it lets things rest before.
    pub(super) faults: Vec<(Duration, Fault)>,
}

/// How much there is in a round.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// How many keys are used.
    pub keys: usize,
    /// Over how long a time.
    pub span: Duration,
}

/// One idempotency key and its requests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) route: Route,
    pub(super) task: Task,
    pub(super) requests: Vec<Request>,
    /// Whether another request under the key is tried once there is an answer.
    pub(super) is_probed: bool,
    /// What an operator does to its record.
    pub(super) settlements: Vec<Settling>,
}

/// What an operator does to the record of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settling {
    /// When the operator looks at the record.
    pub(super) at: Duration,
    /// How long the operator thinks.
    pub(super) thinks: Duration,
    pub(super) change: Change,
    /// Whether a live claim is settled too.
    pub(super) is_forced: bool,
}

/// How an operator settles a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// By removing it.
    Forget,
    /// By letting its request run again with its steps.
    Rerun,
    /// By an answer of the operator's.
    Complete,
}

/// One client that wants an outcome.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) at: Duration,
    /// Which process it turns to first.
    pub(super) process: usize,
    /// Where the process that gets its first try dies.
    pub(super) die: Option<Point>,
    /// When it hangs up its first try.
    pub(super) leaves: Option<Duration>,
}

/// Which handler a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Rejecting,
    Waiting,
    Refusing,
    /// Its answers are large.
    Large,
    /// Its effect is a row in a `Transaction`.
    Transacting,
    /// It has a step, and an operator settles its record meanwhile.
    Operated,
}

impl Route {
    fn of(random: &mut Random, backend: Backend) -> Self {
        match (random.below(8), backend) {
            (0, _) => Self::Large,
            (3, _) => Self::Operated,
            (1..=2, Backend::Postgres | Backend::Sqlite) => Self::Transacting,
            _ => random.one_of(&[Self::Rejecting, Self::Waiting, Self::Refusing]),
        }
    }

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Rejecting => "/journaled/rejecting",
            Self::Waiting => "/journaled/waiting",
            Self::Refusing => "/journaled/refusing",
            Self::Large => "/journaled/large",
            Self::Transacting => "/journaled/transacting",
            Self::Operated => "/journaled/operated",
        }
    }
}

impl Plan {
    /// Even seeds keep what is recorded, odd ones lose it at times.
    pub(super) fn new(seed: u64, backend: Backend, size: Size) -> Self {
        let mut random = Random::new(seed);
        let keeps = seed.is_multiple_of(2);
        let keys = (0..size.keys).map(|number| Key::new(&mut random, number, backend, keeps, size.span));
        let keys = keys.collect();
        let faults = schedule(&mut random, size.span, |random| Fault::deal(random, backend, keeps));
        Self {
            seed,
            keeps,
            keys,
            faults,
        }
    }
}

/// Faults until the span is over, each with how long it lets things rest before. They come from decks that `deal` deals.
pub(super) fn schedule(
    random: &mut Random,
    span: Duration,
    mut deal: impl FnMut(&mut Random) -> Vec<Fault>,
) -> Vec<(Duration, Fault)> {
    let mut deck = Vec::new();
    let mut faults = Vec::new();
    let mut length = Duration::ZERO;
    while length < span {
        // What two stalls in a row would take from a lease, its renewal in between gives back.
        let needs_rest = faults.last().is_some_and(|(_, fault): &(_, Fault)| fault.stalls());
        let least = if needs_rest {
            LEASE / 3 + LEASE / 12
        } else {
            Duration::ZERO
        };
        let rest = least + random.millis(50, 500);
        if deck.is_empty() {
            deck = deal(random);
        }
        let Some(fault) = deck.pop() else { break };
        length += rest + fault.length();
        faults.push((rest, fault));
    }
    faults
}

impl Key {
    fn new(random: &mut Random, number: usize, backend: Backend, keeps: bool, span: Duration) -> Self {
        let begins = random.millis(0, u64::try_from(span.as_millis()).expect("a short time"));
        let route = Route::of(random, backend);
        let mut takes = random.one_of(&[0, 50, 200, 600, 1_000]);
        if (backend, route) == (Backend::Sqlite, Route::Transacting) {
            takes = takes.min(WRITING);
        }
        let mut requests: Vec<_> = (0..=random.below(5))
            .map(|_| Request {
                at: begins + random.millis(0, 300),
                process: random.one_of(&[0, 1, 2]),
                die: None,
                leaves: random.one_in(8).then(|| random.millis(1, 300)),
            })
            .collect();
        if random.one_in(8) {
            // It comes first, so that mostly it is the one that runs.
            requests[0].at = begins;
            requests[0].leaves = None;
            requests[0].die = Some(random.one_of(&Point::ALL));
        }
        Self {
            name: format!("k{number}"),
            route,
            task: Task {
                order: format!("order {number}"),
                takes,
                padding: match route {
                    Route::Large => random.one_of(&PADDINGS),
                    _ => 0,
                },
            },
            requests,
            is_probed: keeps && random.one_in(4) && route != Route::Operated,
            settlements: match route {
                Route::Operated => (0..=random.below(2)).map(|_| Settling::new(random, begins)).collect(),
                _ => Vec::new(),
            },
        }
    }
}

impl Settling {
    fn new(random: &mut Random, begins: Duration) -> Self {
        Self {
            at: begins + random.millis(0, 2_500),
            thinks: random.millis(0, 600),
            change: random.one_of(&[Change::Forget, Change::Rerun, Change::Complete]),
            is_forced: random.one_in(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SIZE: Size = Size {
        keys: 50,
        span: Duration::from_secs(10),
    };

    #[test]
    fn the_same_seed_makes_the_same_plan() {
        for backend in Backend::ALL {
            assert_eq!(Plan::new(7, backend, SIZE), Plan::new(7, backend, SIZE));
            assert_ne!(Plan::new(7, backend, SIZE), Plan::new(9, backend, SIZE));
        }
    }

    #[test]
    fn every_fault_of_a_server_is_dealt_and_those_that_lose_records_to_odd_seeds_only() {
        let kinds = |backend: Backend, keeps: bool| {
            let seeds = (0..200).map(|seed| 2 * seed + u64::from(!keeps));
            let faults = seeds.flat_map(|seed| Plan::new(seed, backend, SIZE).faults);
            let names: BTreeSet<_> = faults.map(|(_, fault)| fault.name(backend)).collect();
            names
        };
        for (backend, keeping, forgetting) in [
            (Backend::Redis, 10, 12),
            (Backend::Cluster, 10, 13),
            (Backend::Postgres, 20, 21),
            (Backend::Sqlite, 9, 10),
        ] {
            let (kept, forgot) = (kinds(backend, true), kinds(backend, false));
            assert_eq!(
                (kept.len(), forgot.len()),
                (keeping, forgetting),
                "{kept:#?} {forgot:#?}"
            );
            assert!(kept.is_subset(&forgot));
        }
    }

    #[test]
    fn no_stall_is_longer_than_two_thirds_of_the_lease() {
        let seeds = 0..200;
        let plans = seeds.flat_map(|seed| Backend::ALL.map(|on| Plan::new(seed, on, SIZE)));
        let stalls = plans.flat_map(|plan| plan.faults).filter(|(_, fault)| fault.stalls());
        let longest = stalls.map(|(_, fault)| fault.length()).max();
        assert!(longest.is_some_and(|longest| longest < LEASE * 2 / 3), "{longest:?}");
    }
}
