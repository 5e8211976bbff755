//! Clauses 1 to 6 of the contract: claiming, taking over and renewing.
//!
//! Owns one function a clause, named as the macro lists them. Does not own how a claim ends: [`outcomes`](super::outcomes).

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Kit, LONG, REQUEST, SHORT, Subject, at_least, claim, fresh_key};
use crate::{Acquisition, Claim, Completion, Fenced, Record};

/// Clause 1.
pub async fn clause_01_an_absent_key_is_claimed_and_one_of_many_claims_wins<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    for _ in 0..20 {
        let key = fresh_key();
        let contenders: Vec<_> = (0..16)
            .map(|_| {
                let (kit, key) = (kit.clone(), key.clone());
                tokio::spawn(async move { kit.claim(&key, &claim(LONG, LONG)).await })
            })
            .collect();
        let mut acquired = 0;
        for contender in contenders {
            match contender.await {
                Ok(Acquisition::Acquired) => acquired += 1,
                Ok(Acquisition::Existing(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(acquired, 1, "of 16 concurrent claims on an absent key");
    }
}

/// Clause 2.
pub async fn clause_02_a_present_key_is_reported_and_not_changed<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let first = Claim {
        attempt: 41,
        ..claim(LONG, LONG)
    };
    assert_eq!(kit.claim(&key, &first).await, Acquisition::Acquired);
    for _ in 0..2 {
        match kit.read(&key).await {
            Record::Claimed { claim, remaining } => {
                assert_eq!(claim, first, "as it was written");
                assert!(remaining > Duration::ZERO && remaining <= LONG, "{remaining:?}");
            }
            other @ (Record::Parked { .. } | Record::Completed { .. }) => panic!("{other:?}"),
        }
    }
    assert_eq!(kit.complete(&key, &first, b"done").await, Fenced::Applied);
    let expected = Record::Completed {
        fingerprint: REQUEST,
        completion: Completion::Stored(b"done".as_slice().into()),
    };
    assert_eq!(kit.read(&key).await, expected);
    assert_eq!(kit.read(&key).await, expected);
}

/// Clause 3.
pub async fn clause_03_a_claim_repeated_by_its_token_is_acquired_again<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let mine = claim(LONG, LONG);
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    let lapsing = fresh_key();
    let (lapsed, next) = (claim(SHORT, LONG), claim(SHORT, LONG));
    assert_eq!(kit.claim(&lapsing, &lapsed).await, Acquisition::Acquired);
    kit.wait_until_lapsed(&lapsing).await;
    assert_eq!(kit.claim(&lapsing, &lapsed).await, Acquisition::Acquired);
    assert_eq!(kit.remaining(&lapsing).await, Duration::ZERO, "the lease started anew");
    assert_eq!(kit.take_over(&lapsing, &lapsed, &next).await, Acquisition::Acquired);
    kit.wait_until_lapsed(&lapsing).await;
    assert_eq!(kit.take_over(&lapsing, &lapsed, &next).await, Acquisition::Acquired);
    assert_eq!(kit.remaining(&lapsing).await, Duration::ZERO, "the lease started anew");
}

/// Clause 4.
pub async fn clause_04_a_lease_lapses_and_the_claim_stays_in_place_until_its_ttl<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let mine = claim(SHORT, SHORT * 10);
    let before = Instant::now();
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    kit.wait_until_lapsed(&key).await;
    assert!(
        before.elapsed() >= at_least(SHORT),
        "lapsed early, after {:?}",
        before.elapsed()
    );
    kit.wait_until_absent(&key).await;
    assert!(
        before.elapsed() >= at_least(SHORT * 11),
        "expired early, after {:?}",
        before.elapsed()
    );
}

/// Clause 5.
pub async fn clause_05_only_exactly_the_lapsed_claim_is_taken_over_and_by_one<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let first = claim(SHORT, LONG);
    let second = |_| Claim {
        attempt: 2,
        ..claim(LONG, LONG)
    };
    assert_eq!(kit.claim(&key, &first).await, Acquisition::Acquired);
    kit.wait_until_lapsed(&key).await;

    let stranger = claim(SHORT, LONG);
    let refused = kit.take_over(&key, &stranger, &second(0)).await;
    assert!(matches!(refused, Acquisition::Existing(Record::Claimed { claim, .. }) if claim == first));

    let contenders: Vec<_> = (0..16)
        .map(second)
        .map(|contender| {
            let (kit, key, first) = (kit.clone(), key.clone(), first.clone());
            tokio::spawn(async move { (kit.take_over(&key, &first, &contender).await, contender) })
        })
        .collect();
    let mut winners = Vec::new();
    for contender in contenders {
        match contender.await {
            Ok((Acquisition::Acquired, winner)) => winners.push(winner),
            Ok((Acquisition::Existing(_), _)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(winners.len(), 1, "of 16 concurrent take-overs");
    let Record::Claimed { claim: held, remaining } = kit.read(&key).await else {
        panic!("a completion nobody made");
    };
    assert_eq!(Some(&held), winners.first());
    assert!(!remaining.is_zero(), "the new lease runs");
    let refused = kit.take_over(&key, &held, &second(0)).await;
    assert!(
        matches!(refused, Acquisition::Existing(_)),
        "a lease that has not lapsed is not taken over"
    );
}

/// Clause 5.
pub async fn clause_05_taking_over_what_is_gone_claims<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let (gone, mine) = (claim(LONG, LONG), claim(LONG, LONG));
    assert_eq!(kit.take_over(&key, &gone, &mine).await, Acquisition::Acquired);
    assert!(matches!(kit.read(&key).await, Record::Claimed { claim, .. } if claim == mine));
}

/// Clause 6.
pub async fn clause_06_renewing_starts_the_lease_anew<S: Subject>(subject: S) {
    const LEASE: Duration = Duration::from_secs(3);
    let kit = Kit::new(subject);
    let (key, lapsing) = (fresh_key(), fresh_key());
    let mine = claim(LEASE, LONG);
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    while kit.remaining(&key).await > LEASE / 2 {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(kit.renew(&key, &mine).await, Fenced::Applied);
    assert!(kit.remaining(&key).await > LEASE / 2, "before it lapsed");

    let mine = claim(SHORT, LONG);
    assert_eq!(kit.claim(&lapsing, &mine).await, Acquisition::Acquired);
    kit.wait_until_lapsed(&lapsing).await;
    let before = Instant::now();
    assert_eq!(kit.renew(&lapsing, &mine).await, Fenced::Applied);
    kit.wait_until_lapsed(&lapsing).await;
    assert!(
        before.elapsed() >= at_least(SHORT),
        "after it lapsed: {:?}",
        before.elapsed()
    );
}
