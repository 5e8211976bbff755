use std::collections::BTreeSet;

use super::moves::{happen, possible};
use super::setting::{EQUAL_REQUESTS, MAX_ATTEMPTS, Outcome, REFUSE, RERUN, RERUN_WITHIN};
use super::subject::Subject;
use super::world::World;
use super::*;

/// The settings, with fewer faults than `cargo xtask spec` explores, because tests are not optimized.
const SMALLER: [Setting; 5] = [
    RERUN.with_faults(0),
    EQUAL_REQUESTS.with_faults(0),
    REFUSE.with_faults(0),
    Setting {
        outcomes: &[Outcome::Keep],
        ..MAX_ATTEMPTS.with_faults(1)
    },
    RERUN_WITHIN.with_faults(0),
];

#[test]
fn no_rule_is_broken_in_any_state_that_can_be_reached_and_every_witness_is() {
    let mut reached = Witnesses::default();
    for setting in &SMALLER {
        let found = explore(setting);
        let figures = found.unwrap_or_else(|way| panic!("{}:\n{way}", setting.name));
        println!("{}: {} states in {:?}", setting.name, figures.states, figures.time);
        reached.add_all(figures.seen);
    }
    for (rule, witness) in Witness::ALL {
        assert!(reached.has(witness), "{rule}: {witness:?} is never reached");
    }
}

#[test]
fn each_mutant_breaks_the_rule_that_it_names_before_any_other() {
    for mutant in MUTANTS {
        let Some(way) = mutant.explore() else {
            panic!("{} breaks no rule", mutant.name);
        };
        assert_eq!(way.violation.rule, mutant.rule, "{}:\n{way}", mutant.name);
    }
}

#[test]
fn every_rule_that_has_a_witness_has_a_mutant_that_breaks_it() {
    let names: BTreeSet<_> = MUTANTS.iter().map(|mutant| mutant.name).collect();
    assert_eq!(names.len(), MUTANTS.len(), "two mutants have one name");
    let broken: BTreeSet<_> = MUTANTS.iter().map(|mutant| mutant.rule).collect();
    let witnessed: BTreeSet<_> = Witness::ALL.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(broken, witnessed);
}

#[test]
fn equal_requests_can_be_renamed_without_changing_what_comes_next() {
    for setting in [EQUAL_REQUESTS, RERUN] {
        let mut known = BTreeSet::new();
        let mut worlds = vec![World::new(&setting)];
        // Depth first, so that most of the worlds are far from the start.
        while let (Some(world), ..500) = (worlds.pop(), known.len()) {
            let next = successors(&world, &setting);
            for names in setting.renamings() {
                assert_eq!(
                    successors(&world.renamed(*names), &setting),
                    next,
                    "{world:?} as {names:?}"
                );
            }
            worlds.extend(next.into_iter().filter(|world| known.insert(*world)));
        }
    }
}

/// The worlds after each possible event.
fn successors(world: &World, setting: &Setting) -> BTreeSet<World> {
    let mut events = Vec::new();
    possible(world, setting, &Subject::RIGHT, &mut events);
    let moves = events
        .iter()
        .map(|event| happen(world, *event, setting, &Subject::RIGHT));
    moves.map(|moved| moved.world.canonical(setting)).collect()
}
