//! Clauses 10 to 15 of the contract: what the store keeps, and what it tells about it.
//!
//! Owns one function a clause, named as the macro lists them. Does not own the calls that change a record:
//! [`claims`](super::claims) and [`outcomes`](super::outcomes).

use super::{Kit, LONG, REQUEST, SHORT, Subject, claim, fresh_key, healthy};
use crate::claim::time_from_millis;
use crate::{
    Acquisition, Backend, BackendError, BackendErrorKind, Claim, Completion, Fenced, Fingerprint, Owner, Record, Token,
};

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
            began_at: time_from_millis([0, 1, 1_764_000_000_999, 253_402_300_799_999][index % 4]),
            owner: Owner::new(["", "web:1", "é", "payments-7d9c5b9f6d-x2x4z:4194304"][index % 4]),
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
    for completion in [Completion::NotStored, Completion::Unknown] {
        let key = fresh_key();
        let mine = claim(LONG, LONG);
        assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
        assert_eq!(kit.complete_with(&key, &mine, &completion).await, Fenced::Applied);
        let expected = Record::Completed {
            fingerprint: REQUEST,
            completion,
        };
        assert_eq!(kit.read(&key).await, expected);
    }
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
    // Twice: the first reading must not have repaired the record.
    for _ in 0..2 {
        for found in [
            backend.claim(&key, &other).await,
            backend.claim(&key, &mine).await,
            backend.take_over(&key, &mine, &other).await,
        ] {
            let kind = found.as_ref().map_err(BackendError::kind);
            assert_eq!(kind, Err(BackendErrorKind::Unreadable), "{found:?}");
        }
        let read = backend.read(&key).await.map_err(|error| error.kind());
        assert_eq!(read, Err(BackendErrorKind::Unreadable));
        for settled in [
            backend.renew(&key, &mine).await,
            backend.complete(&key, &mine, &Completion::NotStored, mine.ttl).await,
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
    // The same claim under two keys: only the key distinguishes the records.
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
    // Several listeners on one key. One of them is dropped before it is told.
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
    // Again and again, as soon as all listeners have left.
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

/// Clause 15.
pub async fn clause_15_reading_returns_what_is_there_and_changes_nothing<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let (key, lapsing) = (fresh_key(), fresh_key());
    let read = async |key| healthy(kit.0.backend().read(key).await);
    assert_eq!(read(&key).await, None);
    let mine = claim(LONG, LONG);
    assert_eq!(
        kit.claim(&key, &mine).await,
        Acquisition::Acquired,
        "reading has claimed"
    );
    for _ in 0..3 {
        let found = read(&key).await;
        let is_mine =
            |record| matches!(record, Record::Claimed { claim, remaining } if claim == mine && !remaining.is_zero());
        assert!(found.is_some_and(is_mine));
    }
    assert_eq!(kit.complete(&key, &mine, b"done").await, Fenced::Applied);
    let completed = Record::Completed {
        fingerprint: REQUEST,
        completion: Completion::Stored(b"done".as_slice().into()),
    };
    for _ in 0..3 {
        assert_eq!(read(&key).await, Some(completed.clone()));
    }
    let short = claim(SHORT, LONG);
    assert_eq!(kit.claim(&lapsing, &short).await, Acquisition::Acquired);
    kit.wait_until_lapsed(&lapsing).await;
    let found = read(&lapsing).await;
    assert!(matches!(found, Some(Record::Claimed { remaining, .. }) if remaining.is_zero()));
    assert_eq!(kit.release(&lapsing, &short).await, Fenced::Applied);
    assert_eq!(read(&lapsing).await, None);
}
