//! One function a clause of the contract, named as the macro lists them.

use super::{
    Acquisition, Claim, Completion, Duration, Fenced, Fingerprint, Instant, Kit, LONG, PATIENCE, REQUEST, Record,
    SHORT, Subject, Token, claim, fresh_key, sleep,
};
use crate::{Backend, BackendError, BackendErrorKind};

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
            completed @ Record::Completed { .. } => panic!("{completed:?}"),
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
    let lapsed = claim(SHORT, LONG);
    assert_eq!(kit.claim(&lapsing, &lapsed).await, Acquisition::Acquired);
    kit.wait_until_lapsed(&lapsing).await;
    assert_eq!(kit.take_over(&lapsing, &lapsed, &mine).await, Acquisition::Acquired);
    assert_eq!(kit.take_over(&lapsing, &lapsed, &mine).await, Acquisition::Acquired);
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
pub async fn clause_07_neither_reading_nor_repeating_prolongs_a_completion<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let mut ttl = Duration::from_millis(500);
    // A machine that stalls may not have touched it before it expired, which shows nothing.
    while touch_until_expired(&kit, ttl).await == 0 {
        ttl *= 2;
        assert!(ttl < PATIENCE, "the completion was never there to be read");
    }
}

/// Reads and repeats a completion until one that was made after it has expired; says how often.
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

/// Clause 10.
pub async fn clause_10_payloads_come_back_byte_for_byte<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let every_byte: Vec<u8> = (0..=255).collect();
    let large = vec![0xFF; 1024 * 1024];
    let payloads: [&[u8]; 5] = [b"", b"\0", b"\r\n{}", &every_byte, &large];
    for (index, payload) in payloads.into_iter().enumerate() {
        let fingerprints = [Fingerprint::NONE, Fingerprint::new(255, [255; 32]), REQUEST];
        let fingerprint = fingerprints[index % fingerprints.len()];
        let key = fresh_key();
        let mine = Claim {
            token: Token::from_bytes([u8::try_from(index).unwrap_or_default(); 16]),
            fingerprint,
            attempt: u32::MAX,
            ..claim(LONG, LONG)
        };
        let completion = Completion::Stored(payload.to_vec().into());
        assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
        assert!(matches!(kit.read(&key).await, Record::Claimed { claim, .. } if claim == mine));
        assert_eq!(kit.complete_with(&key, &mine, &completion).await, Fenced::Applied);
        let expected = Record::Completed {
            fingerprint,
            completion,
        };
        assert_eq!(kit.read(&key).await, expected);
    }
    let key = fresh_key();
    let mine = claim(LONG, LONG);
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    assert_eq!(
        kit.complete_with(&key, &mine, &Completion::NotStored).await,
        Fenced::Applied
    );
    let expected = Record::Completed {
        fingerprint: REQUEST,
        completion: Completion::NotStored,
    };
    assert_eq!(kit.read(&key).await, expected);
}

/// Clause 11.
pub async fn clause_11_what_cannot_be_read_is_an_error_and_not_absent<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let (mine, other) = (claim(LONG, LONG), claim(LONG, LONG));
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    if !kit.0.spoil(&key).await {
        return;
    }
    let backend = kit.0.backend();
    // Twice: finding it must not have mended it.
    for _ in 0..2 {
        for found in [
            backend.claim(&key, &other).await,
            backend.claim(&key, &mine).await,
            backend.take_over(&key, &mine, &other).await,
        ] {
            let kind = found.as_ref().map_err(BackendError::kind);
            assert_eq!(kind, Err(BackendErrorKind::Unreadable), "{found:?}");
        }
        for settled in [
            backend.renew(&key, &mine).await,
            backend.complete(&key, &mine, &Completion::NotStored).await,
            backend.release(&key, &mine).await,
        ] {
            assert!(!matches!(settled, Ok(Fenced::Applied)), "{settled:?}");
        }
    }
}

/// Clause 12.
pub async fn clause_12_keys_do_not_touch_each_other<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let (left, right) = (fresh_key(), fresh_key());
    // One claim under two keys: nothing but the key tells them apart.
    let mine = claim(LONG, LONG);
    assert_eq!(kit.claim(&left, &mine).await, Acquisition::Acquired);
    assert_eq!(kit.claim(&right, &mine).await, Acquisition::Acquired);
    assert_eq!(kit.complete(&left, &mine, b"left").await, Fenced::Applied);
    assert!(matches!(kit.read(&right).await, Record::Claimed { .. }));
    assert_eq!(kit.release(&right, &mine).await, Fenced::Applied);
    assert!(matches!(kit.read(&left).await, Record::Completed { .. }));
}

/// Clause 13.
pub async fn clause_13_whoever_listens_is_told_of_a_completion_and_of_a_release<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let (completed, released, untouched) = (fresh_key(), fresh_key(), fresh_key());
    let mine = claim(LONG, LONG);
    for key in [&completed, &released, &untouched] {
        assert_eq!(kit.claim(key, &mine).await, Acquisition::Acquired);
    }
    // Several on one key, one of which leaves before it is told.
    let mut listeners = Vec::new();
    for key in [&completed, &completed, &released, &completed] {
        listeners.push(kit.changed(key).await);
    }
    drop(listeners.pop());
    let unmoved = kit.changed(&untouched).await;
    assert_eq!(kit.complete(&completed, &mine, b"done").await, Fenced::Applied);
    assert_eq!(kit.release(&released, &mine).await, Fenced::Applied);
    for listener in listeners {
        listener.await;
    }
    drop(unmoved);
    // And again and again, as soon as everybody has left.
    for _ in 0..50 {
        assert_eq!(kit.claim(&released, &mine).await, Acquisition::Acquired);
        let again = kit.changed(&released).await;
        assert_eq!(kit.release(&released, &mine).await, Fenced::Applied);
        again.await;
    }
}

/// Clause 14.
pub async fn clause_14_a_store_that_takes_claims_passes_its_check_and_is_not_changed_by_it<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    kit.check().await;
    let (absent, claimed, completed) = (fresh_key(), fresh_key(), fresh_key());
    let mine = claim(LONG, LONG);
    for key in [&claimed, &completed] {
        assert_eq!(kit.claim(key, &mine).await, Acquisition::Acquired);
    }
    assert_eq!(kit.complete(&completed, &mine, b"done").await, Fenced::Applied);
    for _ in 0..3 {
        kit.check().await;
    }
    assert_eq!(kit.renew(&claimed, &mine).await, Fenced::Applied);
    assert!(matches!(kit.read(&completed).await, Record::Completed { .. }));
    assert_eq!(kit.claim(&absent, &mine).await, Acquisition::Acquired);
}

/// The least that has to have passed of `duration`, by a store that counts in milliseconds.
fn at_least(duration: Duration) -> Duration {
    duration.saturating_sub(Duration::from_millis(2))
}
