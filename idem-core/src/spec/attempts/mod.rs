//! Every state that three attempts of one request with durable steps can reach, over the contract as [`step`](super::step) states it.
//!
//! Owns a small world beside that of [`explore`](super::explore), which has no steps: one record, three attempts that follow each
//! other, and a handler of two steps. Step `a` may be repeated. Step `b` runs at most once and cannot be looked up. Attempts crash at
//! any point, fail at any point, and their calls take effect late, or take effect and lose their reply. Time passes only as far as a
//! lease: nothing expires.
//!
//! | rule | what holds |
//! |---|---|
//! | [`Rule::RecordedRunsAgain`] | a body is not called by a later attempt than the one to which its end was acknowledged. An attempt that has stalled may still call it, as it may run any code: it records nothing |
//! | [`Rule::SupersededRecords`] | a call that is acknowledged was made by the last attempt that has claimed |
//! | [`Rule::SuccessorMisses`] | an attempt that reads sees all that was acknowledged before |
//! | [`Rule::ParkedForgets`] | a parked record has all that was acknowledged |
//! | [`Rule::RunsTwice`] | the body of step `b` is called once at most |

mod mutants;
mod search;
mod world;

pub use self::mutants::MUTANTS;
pub use self::search::{Explored, explore};
pub use self::world::Rule;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_is_broken_in_any_state_that_attempts_with_steps_can_reach() {
        let explored = explore(&mutants::NONE).unwrap_or_else(|broken| panic!("{broken}"));
        println!("{} states, {} transitions", explored.states, explored.transitions);
        assert!(explored.states > 10_000, "{explored:?}");
        // Each way to end is reached, so that no rule holds for want of a case.
        assert!(explored.completed > 0 && explored.parked > 0 && explored.interrupted > 0 && explored.superseded > 0);
    }

    #[test]
    fn each_mutant_breaks_its_rule() {
        assert!(MUTANTS.len() >= 8);
        for mutant in MUTANTS {
            let broken = explore(mutant).expect_err(mutant.name);
            assert_eq!(broken.rule, mutant.breaks, "{}: {broken}", mutant.name);
        }
    }
}
