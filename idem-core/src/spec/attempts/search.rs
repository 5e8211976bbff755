//! The search: from each state by each move to the next ones, breadth first.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

use super::mutants::Mutant;
use super::witness::Witness;
use super::world::{Rule, Setting, World};
use crate::spec::State;

/// What a search has found.
#[derive(Clone, Debug, Default)]
pub struct Explored {
    /// How many states there are.
    pub states: usize,
    /// How many moves lead from one to another.
    pub transitions: usize,
    /// The most moves that are needed to reach a state.
    pub depth: usize,
    /// The witnesses that were reached.
    pub seen: BTreeSet<Witness>,
    /// How long it took.
    pub time: Duration,
}

/// A rule that does not hold, and the moves that lead there.
#[derive(Debug)]
pub struct Broken {
    /// The rule.
    pub rule: Rule,
    moves: Vec<String>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, made) in (1..).zip(&self.moves) {
            writeln!(f, "  {number:>2}. {made}")?;
        }
        write!(f, "  breaks {:?}", self.rule)
    }
}

/// A state that was reached, and how.
struct Reached {
    world: World,
    from: usize,
    depth: usize,
    by: String,
}

/// A search that is under way.
pub(super) struct Search<'a> {
    pub(super) mutant: &'a Mutant,
    known: HashSet<String>,
    reached: Vec<Reached>,
    explored: Explored,
    /// The state whose moves are being made.
    from: usize,
}

/// Explores every state of a setting.
///
/// # Errors
///
/// The first state in which a rule does not hold.
pub fn explore(setting: &Setting) -> Result<Explored, Broken> {
    explore_mutant(&Mutant::none(*setting))
}

/// Explores with one thing changed by `mutant`.
///
/// # Errors
///
/// The first state in which a rule does not hold.
pub fn explore_mutant(mutant: &Mutant) -> Result<Explored, Broken> {
    let begun = Instant::now();
    let start = Reached {
        world: World::start(&mutant.setting),
        from: 0,
        depth: 0,
        by: "nothing has happened".to_owned(),
    };
    let mut search = Search {
        mutant,
        known: HashSet::from([start.world.key()]),
        reached: vec![start],
        explored: Explored::default(),
        from: 0,
    };
    while search.from < search.reached.len() {
        let world = search.reached[search.from].world.clone();
        search.expand(&world)?;
        search.from += 1;
    }
    search.explored.states = search.reached.len();
    search.explored.time = begun.elapsed();
    Ok(search.explored)
}

impl Search<'_> {
    /// Adds a world, to which one move leads.
    pub(super) fn add(&mut self, world: World, by: String) {
        self.explored.transitions += 1;
        if self.known.insert(world.key()) {
            match &world.store {
                State::Completed { .. } => self.saw(Witness::Completed),
                State::Parked { .. } => self.saw(Witness::Parked),
                _ => {}
            }
            let depth = self.reached[self.from].depth + 1;
            self.explored.depth = depth;
            let from = self.from;
            self.reached.push(Reached { world, from, depth, by });
        }
    }

    pub(super) fn saw(&mut self, witness: Witness) {
        self.explored.seen.insert(witness);
    }

    /// The way to the broken rule, if it does not hold after the move `by`.
    pub(super) fn check(&self, holds: bool, rule: Rule, by: &str) -> Result<(), Broken> {
        if holds {
            return Ok(());
        }
        let mut moves = vec![by.to_owned()];
        let mut at = self.from;
        while at > 0 {
            moves.push(self.reached[at].by.clone());
            at = self.reached[at].from;
        }
        moves.reverse();
        Err(Broken { rule, moves })
    }
}
