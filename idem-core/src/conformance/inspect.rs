//! Clauses 23 to 30 of the contract: what an operator sees and settles, for backends that can be inspected.
//!
//! Owns one function a clause, or several, named as the macro [`conformance_of_inspection`](crate::conformance_of_inspection) lists
//! them.

mod owners;
mod scans;
mod settlements;

use std::time::{Duration, SystemTime};

use bytes::Bytes;

pub use self::owners::*;
pub use self::scans::*;
pub use self::settlements::*;
use super::{Kit, LONG, PATIENCE, REQUEST, SHORT, Subject, claim, fresh_key, healthy};
use crate::claim::time_from_millis;
use crate::inspect::{Inspector, LiveClaim, RecordDetails, RecordVersion, Settled, Settlement, StepChange};
use crate::{Acquisition, Backend as _, Completion, Record, RecordKey, Token};

/// Expands to one `#[tokio::test]` per clause about operators. Takes an expression whose future resolves to a new
/// [`Subject`], whose backend can be inspected and keeps steps.
#[macro_export]
macro_rules! conformance_of_inspection {
    ($subject:expr) => {
        $crate::conformance!(@each $subject;
            clause_23_a_scan_returns_every_record_that_stays_and_changes_nothing
            clause_23_a_selection_leaves_out_every_other_record
            clause_23_a_record_that_cannot_be_read_is_listed
            clause_24_inspecting_shows_each_part_of_a_record_in_each_state
            clause_25_a_record_at_another_version_is_not_settled
            clause_25_a_record_that_cannot_be_read_is_forgotten_by_force_alone
            clause_25_a_record_whose_steps_have_changed_is_not_settled
            clause_25_a_live_claim_is_settled_by_force_alone
            clause_26_forgetting_removes_a_record_of_any_phase_with_its_steps
            clause_26_a_rerun_keeps_the_steps_and_parks_the_record
            clause_26_a_rerun_changes_one_step
            clause_26_a_rerun_of_a_record_without_steps_removes_it
            clause_27_a_completion_replaces_a_record_of_any_phase_for_its_ttl
            clause_27_a_completion_repeated_is_applied_and_does_not_prolong_the_record
            clause_28_the_owner_of_a_settled_claim_is_superseded
            clause_28_of_an_operator_and_an_owner_one_ends_the_claim
            clause_28_of_many_operators_one_settles_the_record
            clause_28_an_operator_and_a_takeover_do_not_both_win
            clause_29_whoever_listens_is_told_of_a_settlement
            clause_30_a_diagnosis_reports_something_and_changes_nothing
        );
    };
}

/// When an operator lets a request run again in these tests.
fn rerun_at() -> SystemTime {
    time_from_millis(1_764_000_777_000)
}

fn rerun(step: Option<StepChange>) -> Settlement {
    Settlement::Rerun {
        token: Token::random(),
        began_at: rerun_at(),
        step,
    }
}

fn completion(payload: &'static [u8], ttl: Duration) -> Settlement {
    Settlement::complete(Completion::Stored(Bytes::from_static(payload)), ttl)
}

impl<S: Subject> Kit<S> {
    fn inspector(&self) -> Inspector<'_> {
        match self.0.backend().inspector() {
            Some(inspector) => inspector,
            None => panic!("the backend cannot be inspected"),
        }
    }

    async fn details(&self, key: &RecordKey) -> Option<RecordDetails> {
        healthy(self.inspector().inspect(key).await)
    }

    /// What is under `key`. The test fails if nothing is.
    async fn shown(&self, key: &RecordKey) -> RecordDetails {
        match self.details(key).await {
            Some(details) => details,
            None => panic!("nothing is stored under {key}"),
        }
    }

    async fn version(&self, key: &RecordKey) -> RecordVersion {
        self.shown(key).await.version()
    }

    async fn settle(&self, key: &RecordKey, version: RecordVersion, settlement: &Settlement) -> Settled {
        healthy(
            self.inspector()
                .settle(key, version, settlement, LiveClaim::Refuse)
                .await,
        )
    }

    async fn force(&self, key: &RecordKey, version: RecordVersion, settlement: &Settlement) -> Settled {
        healthy(
            self.inspector()
                .settle(key, version, settlement, LiveClaim::Force)
                .await,
        )
    }

    async fn found(&self, key: &RecordKey) -> Option<Record> {
        healthy(self.0.backend().read(key).await)
    }

    /// A record in each state that a settlement may meet, each with the token of its claim. None is live.
    async fn each_state(&self) -> Vec<(&'static str, RecordKey, Token)> {
        let mut states = Vec::new();
        for state in [
            "lapsed",
            "lapsed with steps",
            "parked",
            "stored",
            "not stored",
            "unknown",
        ] {
            let key = fresh_key();
            let is_lapsed = state.starts_with("lapsed");
            let mine = claim(if is_lapsed { SHORT } else { LONG }, LONG);
            assert_eq!(self.claim(&key, &mine).await, Acquisition::Acquired);
            if matches!(state, "lapsed with steps" | "parked") {
                let _ = self.record_step(&key, &mine, "charge", b"1").await;
                let _ = self.record_step(&key, &mine, "mail", b"2").await;
            }
            match state {
                "parked" => drop(self.park(&key, &mine).await),
                "stored" => drop(self.complete(&key, &mine, b"old").await),
                "not stored" => drop(self.complete_with(&key, &mine, &Completion::NotStored).await),
                "unknown" => drop(self.complete_with(&key, &mine, &Completion::Unknown).await),
                _ => self.wait_until_lapsed(&key).await,
            }
            states.push((state, key, mine.token));
        }
        states
    }
}
