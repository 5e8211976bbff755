//! Mutants: specifications, decisions and owners that are wrong in one thing, and the rule that each of them breaks.
//!
//! Owns the table. They show that the exploration notices what it should: each is explored until a rule is broken, and the
//! first one has to be the rule in the table.

mod decisions;
mod steps;

use super::search::search;
use super::setting::{EQUAL_REQUESTS, MAX_ATTEMPTS, REFUSE, RERUN, RERUN_WITHIN, Setting};
use super::subject::{Decide, Deviation, Step, Subject};
use super::trace::Counterexample;

/// A wrong specification.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// Its name.
    pub name: &'static str,
    /// The rule that it breaks.
    pub rule: &'static str,
    change: Change,
    setting: Setting,
}

/// The part that is wrong.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// The function.
    Step(Step),
    /// The decision.
    Decide(Decide),
    /// An owner's part of the protocol.
    Protocol(Deviation),
}

impl Mutant {
    const fn new(rule: &'static str, name: &'static str, change: Change, setting: Setting) -> Self {
        Self {
            name,
            rule,
            change,
            setting,
        }
    }

    const fn of_step(rule: &'static str, name: &'static str, step: Step, setting: Setting) -> Self {
        Self::new(rule, name, Change::Step(step), setting)
    }

    const fn of_decide(rule: &'static str, name: &'static str, decide: Decide, setting: Setting) -> Self {
        Self::new(rule, name, Change::Decide(decide), setting)
    }

    const fn of_protocol(rule: &'static str, name: &'static str, deviation: Deviation, setting: Setting) -> Self {
        Self::new(rule, name, Change::Protocol(deviation), setting)
    }

    /// What is changed: `step`, `decide` or the protocol.
    #[must_use]
    pub fn changes(&self) -> &'static str {
        match self.change {
            Change::Step(_) => "step",
            Change::Decide(_) => "decide",
            Change::Protocol(_) => "protocol",
        }
    }

    /// The shortest way to the first rule that it breaks; `None` if it breaks none.
    #[must_use]
    pub fn explore(&self) -> Option<Counterexample> {
        let mut subject = Subject::RIGHT;
        match self.change {
            Change::Step(step) => subject.step = step,
            Change::Decide(decide) => subject.decide = decide,
            Change::Protocol(deviation) => subject.deviation = Some(deviation),
        }
        search(&self.setting, &subject).err()
    }
}

/// Every mutant.
#[rustfmt::skip]
pub const MUTANTS: [Mutant; 39] = [
    Mutant::of_step("IDEM-1", "claim-ignores-present", steps::claim_ignores_present, RERUN),
    Mutant::of_step("IDEM-1", "lease-lapses-early", steps::lease_lapses_early, RERUN),
    Mutant::of_step("IDEM-1", "take-over-while-live", steps::take_over_while_live, RERUN),
    Mutant::of_protocol("IDEM-1", "runs-without-a-reply", Deviation::RunsUnsure, RERUN),
    Mutant::of_step("IDEM-2", "claim-over-completed", steps::claim_over_completed, RERUN),
    Mutant::of_step("IDEM-2", "complete-changes-bytes", steps::complete_changes_bytes, RERUN),
    Mutant::of_step("IDEM-2", "complete-expires-at-once", steps::complete_expires_at_once, RERUN),
    Mutant::of_step("IDEM-2", "release-of-completed", steps::release_of_completed, RERUN),
    Mutant::of_step("IDEM-2", "renew-revives-completed", steps::renew_revives_completed, RERUN),
    Mutant::of_decide("IDEM-2", "replay-says-not-stored", decisions::replay_says_not_stored, RERUN),
    Mutant::of_decide("IDEM-3", "fingerprint-ignored", decisions::fingerprint_ignored, RERUN),
    Mutant::of_decide("IDEM-3", "mismatch-after-in-flight", decisions::mismatch_after_in_flight, RERUN),
    Mutant::of_decide("IDEM-4", "in-flight-is-unknown", decisions::in_flight_is_unknown, RERUN),
    Mutant::of_protocol("IDEM-6", "hang-up-releases", Deviation::ReleasesOnHangUp, RERUN),
    Mutant::of_protocol("IDEM-6", "unrecorded-is-released", Deviation::ReleasesUnrecorded, RERUN),
    Mutant::of_protocol("IDEM-7", "attempt-not-incremented", Deviation::KeepsAttempt, RERUN),
    Mutant::of_protocol("IDEM-7", "began-at-reset-by-take-over", Deviation::BeginsAnew, RERUN_WITHIN.with_faults(0)),
    Mutant::of_step("IDEM-7", "claim-repeat-renews", steps::claim_repeat_renews, RERUN),
    Mutant::of_step("IDEM-7", "lapsed-is-absent", steps::lapsed_is_absent, RERUN),
    Mutant::of_step("IDEM-7", "lease-never-lapses", steps::lease_never_lapses, RERUN),
    Mutant::of_decide("IDEM-7", "max-attempts-ignored", decisions::max_attempts_ignored, MAX_ATTEMPTS),
    Mutant::of_decide("IDEM-7", "refuse-reruns", decisions::refuse_reruns, REFUSE),
    Mutant::of_protocol("IDEM-7", "release-of-later-attempt", Deviation::ReleasesLaterAttempts, RERUN),
    Mutant::of_step("IDEM-7", "renew-refuses-lapsed", steps::renew_refuses_lapsed, RERUN),
    Mutant::of_decide("IDEM-7", "rerun-within-ignored", decisions::rerun_within_ignored, RERUN_WITHIN),
    Mutant::of_step("IDEM-7", "take-over-without-compare", steps::take_over_without_compare, EQUAL_REQUESTS),
    Mutant::of_step("IDEM-8", "complete-by-superseded", steps::complete_by_superseded, RERUN),
    Mutant::of_step("IDEM-8", "complete-of-absent", steps::complete_of_absent, RERUN),
    Mutant::of_step("IDEM-8", "release-by-superseded", steps::release_by_superseded, RERUN),
    Mutant::of_step("IDEM-8", "renew-by-superseded", steps::renew_by_superseded, RERUN),
    Mutant::of_step("IDEM-11", "release-keeps-claim", steps::release_keeps_claim, RERUN),
    Mutant::of_step("IDEM-11", "unknown-reruns", steps::unknown_reruns, RERUN),
    Mutant::of_step("IDEM-12", "not-stored-reruns", steps::not_stored_reruns, RERUN),
    Mutant::of_step("IDEM-13", "claim-repeat-refused", steps::claim_repeat_refused, RERUN),
    Mutant::of_step("IDEM-13", "complete-repeat-refused", steps::complete_repeat_refused, RERUN),
    Mutant::of_step("IDEM-14", "complete-ignores-ttl", steps::complete_ignores_ttl, RERUN),
    Mutant::of_step("IDEM-14", "complete-keeps-lease-expiry", steps::complete_keeps_lease_expiry, RERUN),
    Mutant::of_step("IDEM-14", "complete-repeat-prolongs", steps::complete_repeat_prolongs, RERUN),
    Mutant::of_step("IDEM-14", "read-prolongs", steps::read_prolongs, RERUN),
];
