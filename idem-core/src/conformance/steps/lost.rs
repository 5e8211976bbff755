//! Clause 22: steps that the store has lost.

use bytes::Bytes;

use super::{steps, with_steps};
use crate::conformance::{Kit, LONG, Subject, claim, fresh_key};
use crate::{Acquisition, BackendErrorKind, Fenced, Record};

/// Clause 22. Tests nothing where [`Subject::lose_steps`] cannot.
pub async fn clause_22_lost_steps_are_not_begun_anew<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let mine = claim(LONG, LONG);
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    assert_eq!(kit.record_step(&key, &mine, "a", b"1").await, Fenced::Applied);
    if !kit.0.lose_steps(&key).await {
        return;
    }
    let recorded = kit
        .steps()
        .record_step(&key, &with_steps(&mine), "b", &Bytes::new())
        .await;
    assert_eq!(
        recorded.map_err(|error| error.kind()),
        Err(BackendErrorKind::Unreadable)
    );
    assert_eq!(kit.read_steps(&key, &mine).await, Some(steps([])));
}

/// Clause 22: as after a failover that has lost the write of the first step.
pub async fn clause_22_a_first_step_that_was_lost_is_not_recorded_anew<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let mine = claim(LONG, LONG);
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    let recorded = kit
        .steps()
        .record_step(&key, &with_steps(&mine), "b", &Bytes::new())
        .await;
    assert_eq!(
        recorded.map_err(|error| error.kind()),
        Err(BackendErrorKind::Unreadable)
    );
    assert!(matches!(kit.read(&key).await, Record::Claimed { claim, .. } if !claim.has_steps));
}
