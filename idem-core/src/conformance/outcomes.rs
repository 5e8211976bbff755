//! Clauses 7 to 9 of the contract: completing, releasing, and owners that were superseded.
//!
//! Owns one function a clause, named as the macro lists them. Does not own how a claim begins: [`claims`](super::claims).

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Kit, LONG, PATIENCE, REQUEST, SHORT, Subject, at_least, claim, fresh_key};
use crate::{Acquisition, Completion, Fenced, Record};

/// Clauses 7 and 8.
pub async fn clause_07_and_08_a_lapsed_owner_that_was_not_superseded_completes_and_releases<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let (completed, released) = (fresh_key(), fresh_key());
    let mine = claim(SHORT, LONG);
    for key in [&completed, &released] {
        assert_eq!(kit.claim(key, &mine).await, Acquisition::Acquired);
        kit.wait_until_lapsed(key).await;
    }
    assert_eq!(kit.complete(&completed, &mine, b"done").await, Fenced::Applied);
    assert!(matches!(kit.read(&completed).await, Record::Completed { .. }));
    assert_eq!(kit.release(&released, &mine).await, Fenced::Applied);
    assert_eq!(kit.claim(&released, &claim(LONG, LONG)).await, Acquisition::Acquired);
}

/// Clause 7.
pub async fn clause_07_a_completion_stays_for_its_ttl<S: Subject>(subject: S) {
    const TTL: Duration = Duration::from_millis(300);
    let kit = Kit::new(subject);
    let key = fresh_key();
    let mine = claim(LONG, TTL);
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    let before = Instant::now();
    assert_eq!(kit.complete(&key, &mine, b"done").await, Fenced::Applied);
    kit.wait_until_absent(&key).await;
    assert!(
        before.elapsed() >= at_least(TTL),
        "expired early, after {:?}",
        before.elapsed()
    );
}

/// Clause 7.
pub async fn clause_07_a_completion_may_stay_for_another_time_than_its_claim_says<S: Subject>(subject: S) {
    const TTL: Duration = Duration::from_millis(300);
    let kit = Kit::new(subject);
    let (shorter, longer) = (fresh_key(), fresh_key());
    let (long, short) = (claim(LONG, LONG), claim(LONG, SHORT));
    assert_eq!(kit.claim(&shorter, &long).await, Acquisition::Acquired);
    assert_eq!(kit.claim(&longer, &short).await, Acquisition::Acquired);
    let done = Completion::Stored(b"done".as_slice().into());
    assert_eq!(kit.complete_for(&longer, &short, &done, LONG).await, Fenced::Applied);
    let before = Instant::now();
    assert_eq!(kit.complete_for(&shorter, &long, &done, TTL).await, Fenced::Applied);
    kit.wait_until_absent(&shorter).await;
    assert!(
        before.elapsed() >= at_least(TTL),
        "expired early, after {:?}",
        before.elapsed()
    );
    assert!(matches!(kit.read(&longer).await, Record::Completed { .. }));
}

/// Clause 7.
pub async fn clause_07_neither_reading_nor_repeating_prolongs_a_completion<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let mut ttl = Duration::from_millis(500);
    // If the machine stalls, the completion may expire before the test has touched it. Then the run proves nothing.
    while touch_until_expired(&kit, ttl).await == 0 {
        ttl *= 2;
        assert!(ttl < PATIENCE, "the completion was never there to be read");
    }
}

/// Reads and repeats a completion until a later completion has expired. Returns how often.
async fn touch_until_expired<S: Subject>(kit: &Kit<S>, ttl: Duration) -> u32 {
    let (key, control) = (fresh_key(), fresh_key());
    let (mine, later) = (claim(LONG, ttl), claim(LONG, ttl));
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    assert_eq!(kit.claim(&control, &later).await, Acquisition::Acquired);
    assert_eq!(kit.complete(&key, &mine, b"done").await, Fenced::Applied);
    assert_eq!(kit.complete(&control, &later, b"done").await, Fenced::Applied);
    let mut touched = 0;
    while kit.claim(&control, &claim(LONG, LONG)).await != Acquisition::Acquired {
        let reader = claim(LONG, LONG);
        match kit.claim(&key, &reader).await {
            Acquisition::Existing(_) if kit.complete(&key, &mine, b"done").await == Fenced::Applied => touched += 1,
            Acquisition::Existing(_) => {}
            Acquisition::Acquired => assert_eq!(kit.release(&key, &reader).await, Fenced::Applied),
        }
        sleep(ttl / 10).await;
    }
    assert_eq!(
        kit.claim(&key, &claim(LONG, LONG)).await,
        Acquisition::Acquired,
        "it was prolonged"
    );
    touched
}

/// Clause 8.
pub async fn clause_08_a_release_makes_the_key_absent<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let mine = claim(LONG, LONG);
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    assert_eq!(kit.release(&key, &mine).await, Fenced::Applied);
    assert_eq!(
        kit.release(&key, &mine).await,
        Fenced::Superseded,
        "nothing is left of it"
    );
    assert_eq!(kit.claim(&key, &claim(LONG, LONG)).await, Acquisition::Acquired);
}

/// Clause 9.
pub async fn clause_09_a_superseded_owner_changes_nothing<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let (old, new) = (claim(SHORT, LONG), claim(LONG, LONG));

    for absent in [&old, &new] {
        assert_eq!(
            kit.renew(&key, absent).await,
            Fenced::Superseded,
            "nothing there to renew"
        );
        assert_eq!(
            kit.complete(&key, absent, b"old").await,
            Fenced::Superseded,
            "nothing there to complete"
        );
        assert_eq!(
            kit.release(&key, absent).await,
            Fenced::Superseded,
            "nothing there to release"
        );
    }

    assert_eq!(kit.claim(&key, &old).await, Acquisition::Acquired);
    kit.wait_until_lapsed(&key).await;
    assert_eq!(kit.take_over(&key, &old, &new).await, Acquisition::Acquired);
    assert_eq!(kit.renew(&key, &old).await, Fenced::Superseded);
    assert_eq!(kit.complete(&key, &old, b"old").await, Fenced::Superseded);
    assert_eq!(kit.release(&key, &old).await, Fenced::Superseded);
    assert!(matches!(kit.read(&key).await, Record::Claimed { claim, .. } if claim == new));

    assert_eq!(kit.complete(&key, &new, b"new").await, Fenced::Applied);
    assert_eq!(kit.renew(&key, &old).await, Fenced::Superseded);
    assert_eq!(kit.complete(&key, &old, b"old").await, Fenced::Superseded);
    assert_eq!(kit.release(&key, &old).await, Fenced::Superseded);
    assert_eq!(
        kit.release(&key, &new).await,
        Fenced::Superseded,
        "what is completed is not released any more"
    );
    let expected = Record::Completed {
        fingerprint: REQUEST,
        completion: Completion::Stored(b"new".as_slice().into()),
    };
    assert_eq!(kit.read(&key).await, expected);
}
