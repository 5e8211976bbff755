//! Clauses 16 to 22 of the contract: the durable steps of a record, for backends that keep steps.
//!
//! Owns one function a clause, or several, named as the macro [`conformance_of_steps`](crate::conformance_of_steps) lists them.

mod ends;
mod lost;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::{Kit, LONG, PATIENCE, SHORT, Subject, claim, fresh_key, healthy};
use crate::steps::StepStore;
use crate::{Acquisition, Backend as _, Claim, Fenced, Record, RecordKey};

pub use self::ends::*;
pub use self::lost::*;

/// Expands to one `#[tokio::test]` per clause about steps. Takes an expression whose future resolves to a new
/// [`Subject`], whose backend keeps steps.
#[macro_export]
macro_rules! conformance_of_steps {
    ($subject:expr) => {
        $crate::conformance!(@each $subject;
            clause_16_a_step_is_recorded_over_one_of_the_same_name_and_renews_the_lease
            clause_17_steps_come_back_byte_for_byte_and_reading_changes_nothing
            clause_18_parking_keeps_the_steps_for_the_ttl_and_may_be_repeated
            clause_18_parking_a_claim_without_steps_releases_it
            clause_18_whoever_listens_is_told_of_a_parking
            clause_3_a_claim_with_steps_is_acquired_again_by_its_token
            clause_19_steps_stay_when_a_lapsed_claim_is_taken_over
            clause_19_a_parked_claim_is_taken_over_at_once_and_by_one
            clause_19_a_claim_that_has_got_its_first_step_since_it_was_read_is_not_taken_over
            clause_19_a_claim_that_was_parked_since_it_was_read_is_not_taken_over
            clause_20_a_parked_claim_has_no_owner
            clause_20_a_superseded_owner_records_and_reads_no_step
            clause_21_steps_end_with_their_record
            clause_21_a_claim_begins_without_steps
            clause_21_taking_over_what_has_expired_claims_without_steps
            clause_22_lost_steps_are_not_begun_anew
            clause_22_a_first_step_that_was_lost_is_not_recorded_anew
        );
    };
}

impl<S: Subject> Kit<S> {
    fn steps(&self) -> StepStore<'_> {
        match self.0.backend().steps() {
            Some(steps) => steps,
            None => panic!("the backend keeps no steps"),
        }
    }

    pub(super) async fn record_step(&self, key: &RecordKey, claim: &Claim, name: &str, step: &[u8]) -> Fenced {
        let step = Bytes::copy_from_slice(step);
        healthy(self.steps().record_step(key, claim, name, &step).await)
    }

    pub(super) async fn read_steps(&self, key: &RecordKey, claim: &Claim) -> Option<BTreeMap<String, Bytes>> {
        let steps = healthy(self.steps().read_steps(key, &with_steps(claim)).await);
        steps.map(|steps| steps.into_iter().collect())
    }

    pub(super) async fn park(&self, key: &RecordKey, claim: &Claim) -> Fenced {
        healthy(self.steps().park(key, &with_steps(claim)).await)
    }

    async fn is_parked(&self, key: &RecordKey) -> bool {
        matches!(self.read(key).await, Record::Parked { .. })
    }
}

/// The claim as its owner passes it once it has tried to record a step.
fn with_steps(claim: &Claim) -> Claim {
    Claim {
        has_steps: true,
        ..claim.clone()
    }
}

fn steps<const N: usize>(steps: [(&str, &'static [u8]); N]) -> BTreeMap<String, Bytes> {
    let steps = steps.map(|(name, step)| (name.to_owned(), Bytes::from_static(step)));
    steps.into_iter().collect()
}

/// Clause 16.
pub async fn clause_16_a_step_is_recorded_over_one_of_the_same_name_and_renews_the_lease<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let mine = claim(SHORT, LONG);
    assert_eq!(
        kit.record_step(&key, &mine, "a", b"1").await,
        Fenced::Superseded,
        "nothing is claimed"
    );
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    assert!(matches!(kit.read(&key).await, Record::Claimed { claim, .. } if !claim.has_steps));
    kit.wait_until_lapsed(&key).await;
    for step in [b"1".as_slice(), b"2"] {
        assert_eq!(kit.record_step(&key, &mine, "a", step).await, Fenced::Applied);
    }
    match kit.read(&key).await {
        Record::Claimed { claim, .. } => assert_eq!(claim, with_steps(&mine)),
        other => panic!("{other:?}"),
    }
    assert_eq!(kit.record_step(&key, &mine, "b", b"3").await, Fenced::Applied);
    assert_eq!(
        kit.read_steps(&key, &mine).await,
        Some(steps([("a", b"2"), ("b", b"3")]))
    );
    // The lease started anew: with a long one, it can be seen.
    let key = fresh_key();
    let long = claim(LONG, LONG);
    assert_eq!(kit.claim(&key, &long).await, Acquisition::Acquired);
    sleep(SHORT).await;
    let before = kit.remaining(&key).await;
    assert_eq!(kit.record_step(&key, &long, "a", b"1").await, Fenced::Applied);
    assert!(kit.remaining(&key).await > before, "the lease was not renewed");
    assert_eq!(kit.renew(&key, &with_steps(&long)).await, Fenced::Applied);
    assert_eq!(kit.claim(&key, &long).await, Acquisition::Acquired, "its own claim");
}

/// Clause 17.
pub async fn clause_17_steps_come_back_byte_for_byte_and_reading_changes_nothing<S: Subject>(subject: S) {
    const LARGE: usize = 64 * 1024;
    let kit = Kit::new(subject);
    let key = fresh_key();
    let mine = claim(LONG, LONG);
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let large = vec![0xFF; LARGE];
    let longest = "x".repeat(64);
    let recorded: [(&str, &[u8]); 4] = [
        ("empty", b""),
        ("bytes", &every_byte),
        ("A-z_0", &large),
        (&longest, b"'\\\""),
    ];
    for (name, step) in recorded {
        assert_eq!(kit.record_step(&key, &mine, name, step).await, Fenced::Applied);
    }
    let expected = recorded.map(|(name, step)| (name.to_owned(), Bytes::copy_from_slice(step)));
    let expected: BTreeMap<_, _> = expected.into_iter().collect();
    for _ in 0..2 {
        assert_eq!(kit.read_steps(&key, &mine).await, Some(expected.clone()));
    }
}

/// Clause 18.
pub async fn clause_18_parking_keeps_the_steps_for_the_ttl_and_may_be_repeated<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let (kept, gone) = (fresh_key(), fresh_key());
    let (long, short) = (claim(LONG, LONG), claim(LONG, Duration::from_millis(300)));
    for (key, mine) in [(&kept, &long), (&gone, &short)] {
        assert_eq!(kit.claim(key, mine).await, Acquisition::Acquired);
        assert_eq!(kit.record_step(key, mine, "a", b"1").await, Fenced::Applied);
        for _ in 0..2 {
            assert_eq!(kit.park(key, mine).await, Fenced::Applied);
        }
    }
    match kit.read(&kept).await {
        Record::Parked { claim } => assert_eq!(claim, with_steps(&long)),
        other => panic!("{other:?}"),
    }
    kit.wait_until_absent(&gone).await;
    assert!(kit.is_parked(&kept).await);
}

/// Clause 18.
pub async fn clause_18_parking_a_claim_without_steps_releases_it<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let (mine, next) = (claim(LONG, LONG), claim(LONG, LONG));
    assert_eq!(kit.park(&key, &mine).await, Fenced::Superseded, "nothing is claimed");
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    assert_eq!(kit.park(&key, &mine).await, Fenced::Applied);
    assert_eq!(kit.claim(&key, &next).await, Acquisition::Acquired);
}

/// Clause 18.
pub async fn clause_18_whoever_listens_is_told_of_a_parking<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let mine = claim(LONG, LONG);
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    assert_eq!(kit.record_step(&key, &mine, "a", b"1").await, Fenced::Applied);
    let changed = kit.changed(&key).await;
    assert_eq!(kit.park(&key, &mine).await, Fenced::Applied);
    assert!(tokio::time::timeout(PATIENCE, changed).await.is_ok(), "nobody was told");
}

/// Clauses 3 and 5, after a first step: the answer of a call may be lost, and be waited for by nobody.
pub async fn clause_3_a_claim_with_steps_is_acquired_again_by_its_token<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let (key, lapses, next) = (fresh_key(), claim(SHORT, LONG), claim(LONG, LONG));
    assert_eq!(kit.claim(&key, &lapses).await, Acquisition::Acquired);
    kit.wait_until_lapsed(&key).await;
    assert_eq!(kit.take_over(&key, &lapses, &next).await, Acquisition::Acquired);
    assert_eq!(kit.record_step(&key, &next, "a", b"1").await, Fenced::Applied);
    for repeated in [next.clone(), with_steps(&next)] {
        assert_eq!(kit.claim(&key, &repeated).await, Acquisition::Acquired);
        for lapsed in [lapses.clone(), with_steps(&lapses)] {
            assert_eq!(kit.take_over(&key, &lapsed, &repeated).await, Acquisition::Acquired);
        }
    }
    assert_eq!(kit.read_steps(&key, &next).await, Some(steps([("a", b"1")])));
}

/// Clause 19.
pub async fn clause_19_steps_stay_when_a_lapsed_claim_is_taken_over<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let (old, new) = (claim(SHORT, LONG), with_steps(&claim(LONG, LONG)));
    assert_eq!(kit.claim(&key, &old).await, Acquisition::Acquired);
    assert_eq!(kit.record_step(&key, &old, "a", b"1").await, Fenced::Applied);
    let old = with_steps(&old);
    assert!(
        matches!(
            kit.take_over(&key, &claim(SHORT, LONG), &new).await,
            Acquisition::Existing(_)
        ),
        "another claim"
    );
    kit.wait_until_lapsed(&key).await;
    for _ in 0..2 {
        assert_eq!(kit.take_over(&key, &old, &new).await, Acquisition::Acquired);
    }
    let next = with_steps(&claim(LONG, LONG));
    match kit.take_over(&key, &new, &next).await {
        Acquisition::Existing(Record::Claimed { claim, .. }) => assert_eq!(claim, new, "its lease has not lapsed"),
        other => panic!("{other:?}"),
    }
    assert_eq!(kit.read_steps(&key, &new).await, Some(steps([("a", b"1")])));
    assert_eq!(kit.record_step(&key, &new, "b", b"2").await, Fenced::Applied);
    assert_eq!(
        kit.read_steps(&key, &new).await,
        Some(steps([("a", b"1"), ("b", b"2")]))
    );
}

/// Clause 19.
pub async fn clause_19_a_parked_claim_is_taken_over_at_once_and_by_one<S: Subject>(subject: S) {
    const RIVALS: usize = 16;
    let kit = Kit::new(subject);
    let key = fresh_key();
    let mine = claim(LONG, LONG);
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    assert_eq!(kit.record_step(&key, &mine, "a", b"1").await, Fenced::Applied);
    assert_eq!(kit.park(&key, &mine).await, Fenced::Applied);
    let parked = with_steps(&mine);
    let rivals: Vec<_> = (0..RIVALS)
        .map(|_| {
            let (kit, key, parked) = (kit.clone(), key.clone(), parked.clone());
            let new = with_steps(&claim(LONG, LONG));
            tokio::spawn(
                async move { (kit.take_over(&key, &parked, &new).await == Acquisition::Acquired).then_some(new) },
            )
        })
        .collect();
    let mut winners = Vec::new();
    for rival in rivals {
        match rival.await {
            Ok(won) => winners.extend(won),
            Err(error) => panic!("{error}"),
        }
    }
    let [winner] = &winners[..] else {
        panic!("{} have taken it over", winners.len());
    };
    assert_eq!(kit.read_steps(&key, winner).await, Some(steps([("a", b"1")])));
    assert_eq!(kit.read_steps(&key, &parked).await, None, "superseded");
}

/// Clauses 5 and 19: whoever takes a claim over knows whether it has steps.
pub async fn clause_19_a_claim_that_has_got_its_first_step_since_it_was_read_is_not_taken_over<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let (old, new) = (claim(SHORT, LONG), claim(LONG, LONG));
    assert_eq!(kit.claim(&key, &old).await, Acquisition::Acquired);
    kit.wait_until_lapsed(&key).await;
    assert_eq!(kit.record_step(&key, &old, "a", b"1").await, Fenced::Applied);
    kit.wait_until_lapsed(&key).await;
    match kit.take_over(&key, &old, &new).await {
        Acquisition::Existing(Record::Claimed { claim, .. }) => assert_eq!(claim, with_steps(&old)),
        other => panic!("{other:?}"),
    }
    let new = with_steps(&new);
    assert_eq!(
        kit.take_over(&key, &with_steps(&old), &new).await,
        Acquisition::Acquired
    );
    assert_eq!(kit.read_steps(&key, &new).await, Some(steps([("a", b"1")])));
}

/// Clauses 5 and 19: the same if it was parked since.
pub async fn clause_19_a_claim_that_was_parked_since_it_was_read_is_not_taken_over<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let (old, new) = (claim(SHORT, LONG), claim(LONG, LONG));
    assert_eq!(kit.claim(&key, &old).await, Acquisition::Acquired);
    kit.wait_until_lapsed(&key).await;
    assert_eq!(kit.record_step(&key, &old, "a", b"1").await, Fenced::Applied);
    assert_eq!(kit.park(&key, &old).await, Fenced::Applied);
    match kit.take_over(&key, &old, &new).await {
        Acquisition::Existing(Record::Parked { claim }) => assert_eq!(claim, with_steps(&old)),
        other => panic!("{other:?}"),
    }
    let new = with_steps(&new);
    assert_eq!(
        kit.take_over(&key, &with_steps(&old), &new).await,
        Acquisition::Acquired
    );
    assert_eq!(kit.read_steps(&key, &new).await, Some(steps([("a", b"1")])));
}

/// Clause 20.
pub async fn clause_20_a_parked_claim_has_no_owner<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let mine = claim(LONG, LONG);
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    assert_eq!(kit.record_step(&key, &mine, "a", b"1").await, Fenced::Applied);
    assert_eq!(kit.park(&key, &mine).await, Fenced::Applied);
    let parked = with_steps(&mine);
    assert_eq!(kit.renew(&key, &parked).await, Fenced::Superseded);
    assert_eq!(kit.complete(&key, &parked, b"late").await, Fenced::Superseded);
    assert_eq!(kit.release(&key, &parked).await, Fenced::Superseded);
    assert_eq!(kit.record_step(&key, &mine, "b", b"2").await, Fenced::Superseded);
    assert_eq!(kit.read_steps(&key, &mine).await, None);
    assert!(matches!(
        kit.claim(&key, &mine).await,
        Acquisition::Existing(Record::Parked { .. })
    ));
    let next = with_steps(&claim(LONG, LONG));
    assert_eq!(kit.take_over(&key, &parked, &next).await, Acquisition::Acquired);
    assert_eq!(kit.read_steps(&key, &next).await, Some(steps([("a", b"1")])));
}

/// Clause 20.
pub async fn clause_20_a_superseded_owner_records_and_reads_no_step<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let (old, new) = (claim(SHORT, LONG), with_steps(&claim(LONG, LONG)));
    assert_eq!(kit.claim(&key, &old).await, Acquisition::Acquired);
    assert_eq!(kit.record_step(&key, &old, "a", b"1").await, Fenced::Applied);
    kit.wait_until_lapsed(&key).await;
    assert_eq!(
        kit.take_over(&key, &with_steps(&old), &new).await,
        Acquisition::Acquired
    );
    assert_eq!(kit.record_step(&key, &old, "a", b"2").await, Fenced::Superseded);
    assert_eq!(kit.read_steps(&key, &old).await, None);
    assert_eq!(kit.park(&key, &old).await, Fenced::Superseded);
    assert_eq!(kit.read_steps(&key, &new).await, Some(steps([("a", b"1")])));
    assert_eq!(kit.complete(&key, &new, b"done").await, Fenced::Applied);
    for owner in [&old, &new] {
        assert_eq!(
            kit.record_step(&key, owner, "a", b"3").await,
            Fenced::Superseded,
            "it is completed"
        );
        assert_eq!(kit.park(&key, owner).await, Fenced::Superseded, "it is completed");
    }
}
