//! Clauses 10 to 14 of the contract: what the store keeps, and what it tells about it.
//!
//! Owns one function a clause, named as the macro lists them. Does not own the calls that change a record:
//! [`claims`](super::claims) and [`outcomes`](super::outcomes).

use super::{Kit, LONG, REQUEST, Subject, claim, fresh_key};
use crate::{
    Acquisition, Backend, BackendError, BackendErrorKind, Claim, Completion, Fenced, Fingerprint, Record, Token,
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
