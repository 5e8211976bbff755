//! An exhaustive exploration of the specification, of the decision, and of the protocol of a claim's owner.
//!
//! Owns a small world: one record; three requests, of which one may differ from the others; the messages between them and the
//! store; and a clock. [`explore`] visits every state that the world can reach, breadth first, and checks the rules of the
//! promise at each event. The store is [`step`](super::step), the decision over a record is [`decide`](crate::decide), and
//! the owners follow the engine's protocol: claim, decide, take over or answer; run, renew, end; repeat what was lost; release
//! a claim whose handler has not started.
//!
//! # What is checked
//!
//! The rules are not read off the store's state. A second account, the truth, follows from the replies that the store gave and
//! from the time that has passed. Each reply, each decision and each release is judged by it. [`Witness::ALL`] lists the
//! situations that the exploration must have reached, so that no rule holds only because nothing happened. [`MUTANTS`] are
//! specifications, decisions and owners that are wrong in one thing; each of them breaks the rule that it names.
//!
//! # Bounds
//!
//! | what | bound |
//! |---|---|
//! | records | one, because keys do not touch each other (clause 12) |
//! | requests | three, each with one token; so three attempts at most |
//! | fingerprints | two, or one |
//! | time | ticks: a lease is two, a `ttl` three, and a `ttl` of an outcome's own one. The clock has no end: times are relative |
//! | faults | two in each run: lost replies, late messages, given up calls, crashes, rolled back transactions |
//! | late messages | one at a time; any other message takes as long as it likes, and so does every step of a process |
//!
//! Equal requests are interchangeable: worlds that differ only by the names of equal requests are one state.
//!
//! Does not own what is not in this world: deadlines and the times of renewals (the engine's tests, and its seeded model),
//! waiting, records that cannot be read, and several keys (the conformance kit).

mod answers;
mod moves;
mod mutants;
mod search;
mod setting;
mod subject;
#[cfg(test)]
mod tests;
mod trace;
mod translate;
mod truth;
mod witness;
mod world;

pub use self::mutants::{MUTANTS, Mutant};
pub use self::search::Figures;
pub use self::setting::{SETTINGS, Setting};
pub use self::trace::Counterexample;
pub use self::truth::Violation;
pub use self::witness::{Witness, Witnesses};

/// Explores every state that can be reached under `setting`.
///
/// # Errors
///
/// The shortest way to a broken rule, if there is one.
pub fn explore(setting: &Setting) -> Result<Figures, Counterexample> {
    search::search(setting, &subject::Subject::RIGHT)
}
