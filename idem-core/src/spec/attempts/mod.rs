//! Every state that three attempts of one request with durable steps can reach, over the contract as [`step`](super::step) states it.
//!
//! Owns a small world beside that of [`explore`](super::explore), which has no steps: one record, three attempts that follow each
//! other, and a handler of two steps. Step `a` may be repeated. Step `b` runs at most once; in one setting it cannot be looked up, in
//! the other one it is reconciled. Attempts crash at any point and fail at any point. Their calls take effect late, or take effect and
//! lose their reply, and are then repeated as the engine repeats them. A lease lapses at any moment, and a lapsed, parked or completed
//! record expires at any moment. In a third setting an operator looks at the record, and settles it at a later moment.
//!
//! | rule | what holds |
//! |---|---|
//! | [`Rule::RecordedRunsAgain`] | a body is not called by a later attempt than the one to which its end was acknowledged. An attempt that has stalled may still call it, as it may run any code: it records nothing |
//! | [`Rule::SupersededRecords`] | a call that is acknowledged was made by the last attempt that has claimed, while the record had not expired |
//! | [`Rule::SuccessorMisses`] | an attempt that reads sees all that was acknowledged before |
//! | [`Rule::ParkedForgets`] | a parked record has all that was acknowledged |
//! | [`Rule::ParkedHolds`] | a record whose attempt has parked it has no owner |
//! | [`Rule::RunsTwice`] | the body of step `b` is called once at most, or again by an attempt that was told that it did not happen |
//! | [`Rule::ExpiredSeen`] | a record that is begun anew has no steps |
//! | [`Rule::SettledUnseen`] | an operator changes a record only if no attempt has claimed, completed or parked it, or recorded a step, since it was shown |
//! | [`Rule::LiveSettled`] | an operator settles a live claim by force alone |
//! | [`Rule::SettledRuns`] | no attempt claims a record to which an operator has given an outcome |
//!
//! Does not own the engine's code: its protocol is written down a second time here. Results, inputs and sizes are not in this world,
//! and a look at a record and the takeover after it are one move. The seeded model of the engine has all of them.

mod moves;
mod mutants;
mod operator;
mod operator_mutants;
mod search;
mod witness;
mod world;

pub use self::mutants::{MUTANTS, Mutant};
pub use self::search::{Broken, Explored, explore, explore_mutant};
pub use self::witness::Witness;
pub use self::world::{Rule, SETTINGS, Setting};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_rule_is_broken_in_any_state_that_attempts_with_steps_can_reach_and_every_witness_is() {
        let mut seen = BTreeSet::new();
        // Fewer faults than `cargo xtask spec` explores, because tests are not optimized.
        for setting in SETTINGS.map(|setting| setting.with_faults(1)) {
            let explored = explore(&setting).unwrap_or_else(|broken| panic!("{}: {broken}", setting.name));
            println!(
                "{}: {} states, {} transitions in {:?}",
                setting.name, explored.states, explored.transitions, explored.time
            );
            assert!(explored.states > 10_000, "{explored:?}");
            seen.extend(explored.seen);
        }
        for witness in Witness::ALL {
            assert!(seen.contains(&witness), "{witness:?} is never reached");
        }
    }

    #[test]
    fn each_mutant_breaks_its_rule() {
        for mutant in MUTANTS {
            let broken = explore_mutant(mutant).expect_err(mutant.name);
            assert_eq!(broken.rule, mutant.breaks, "{}: {broken}", mutant.name);
        }
    }

    #[test]
    fn each_rule_has_a_mutant_that_breaks_it_and_each_mutant_a_name() {
        let names: BTreeSet<_> = MUTANTS.iter().map(|mutant| mutant.name).collect();
        assert_eq!(names.len(), MUTANTS.len(), "two mutants have one name");
        for rule in Rule::ALL {
            assert!(MUTANTS.iter().any(|mutant| mutant.breaks == rule), "{rule:?}");
        }
    }
}
