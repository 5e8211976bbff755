//! Clause 21: the end of a record is the end of its steps.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{steps, with_steps};
use crate::conformance::{Kit, LONG, PATIENCE, REQUEST, SHORT, Subject, claim, fresh_key, healthy};
use crate::{Acquisition, Backend as _, Completion, Fenced, Record};

/// Clause 21.
pub async fn clause_21_steps_end_with_their_record<S: Subject>(subject: S) {
    const TTL: Duration = Duration::from_millis(200);
    let kit = Kit::new(subject);
    let ends = ["completed", "released", "expired", "parked and expired"];
    for end in ends {
        let key = fresh_key();
        let mine = claim(SHORT, TTL);
        assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
        assert_eq!(kit.record_step(&key, &mine, "a", b"1").await, Fenced::Applied);
        let mine = with_steps(&mine);
        match end {
            "completed" => {
                assert_eq!(kit.complete(&key, &mine, b"done").await, Fenced::Applied);
                let expected = Record::Completed {
                    fingerprint: REQUEST,
                    completion: Completion::Stored(b"done".as_slice().into()),
                };
                assert_eq!(kit.read(&key).await, expected);
                assert_eq!(kit.complete(&key, &mine, b"again").await, Fenced::Applied, "repeated");
            }
            "released" => assert_eq!(kit.release(&key, &mine).await, Fenced::Applied),
            "expired" => {}
            _ => assert_eq!(kit.park(&key, &mine).await, Fenced::Applied),
        }
        let next = claim(LONG, LONG);
        let patience = Instant::now() + PATIENCE;
        while kit.claim(&key, &next).await != Acquisition::Acquired {
            assert!(Instant::now() < patience, "{end}: the record never expired");
            sleep(Duration::from_millis(2)).await;
        }
        assert!(
            matches!(kit.read(&key).await, Record::Claimed { claim, .. } if claim == next),
            "{end}"
        );
        assert_eq!(kit.record_step(&key, &next, "b", b"2").await, Fenced::Applied);
        assert_eq!(kit.read_steps(&key, &next).await, Some(steps([("b", b"2")])), "{end}");
    }
}

/// Clause 21. A claim begins without steps, whatever its `has_steps` says: whoever repeats a call may have had some in between.
pub async fn clause_21_a_claim_begins_without_steps<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let (key, lapses, next) = (fresh_key(), claim(SHORT, LONG), claim(LONG, LONG));
    assert_eq!(kit.claim(&key, &with_steps(&lapses)).await, Acquisition::Acquired);
    assert!(matches!(kit.read(&key).await, Record::Claimed { claim, .. } if claim == lapses));
    let patience = Instant::now() + PATIENCE;
    while kit.take_over(&key, &lapses, &with_steps(&next)).await != Acquisition::Acquired {
        assert!(Instant::now() < patience, "the claim never lapsed");
        sleep(Duration::from_millis(2)).await;
    }
    assert!(matches!(kit.read(&key).await, Record::Claimed { claim, .. } if claim == next));
    assert_eq!(kit.read_steps(&key, &next).await, Some(steps([])));
}

/// Clauses 5 and 21. The owner of the new claim tells by it that the steps have ended with their record, and are not lost.
pub async fn clause_21_taking_over_what_has_expired_claims_without_steps<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    for is_parked in [false, true] {
        let (key, mine, next) = (fresh_key(), claim(SHORT, SHORT), claim(LONG, LONG));
        assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
        assert_eq!(kit.record_step(&key, &mine, "a", b"1").await, Fenced::Applied);
        assert!(!is_parked || kit.park(&key, &mine).await == Fenced::Applied);
        let patience = Instant::now() + PATIENCE;
        while healthy(kit.0.backend().read(&key).await).is_some() {
            assert!(Instant::now() < patience, "the record never expired");
            sleep(Duration::from_millis(2)).await;
        }
        // The one that takes it over has seen a claim with steps.
        let taken = kit.take_over(&key, &with_steps(&mine), &with_steps(&next)).await;
        assert_eq!(taken, Acquisition::Acquired);
        let is_without_steps = matches!(kit.read(&key).await, Record::Claimed { claim, .. } if claim == next);
        assert!(is_without_steps, "parked {is_parked}");
        assert_eq!(kit.read_steps(&key, &next).await, Some(steps([])));
    }
}
