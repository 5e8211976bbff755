use std::time::Duration;

use super::*;
use crate::{ClaimPolicy, IdempotencyKey, Scope};

fn key(number: u32) -> RecordKey {
    RecordKey::new("o", &Scope::global(), &IdempotencyKey::of(&number)).expect("a valid key")
}

#[tokio::test(start_paused = true)]
async fn expired_records_leave_memory_as_new_ones_come() {
    let backend = MemoryBackend::new();
    let policy = ClaimPolicy::new(Duration::from_secs(10)).with_lease(Duration::from_secs(1));
    for number in 0..10_000 {
        let claim = Claim::first(Fingerprint::NONE, &policy);
        let acquired = backend.claim(&key(number), &claim).await.expect("no I/O");
        assert_eq!(acquired, Acquisition::Acquired);
        let _ = backend
            .complete(&key(number), &claim, &Completion::NotStored, claim.ttl)
            .await;
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    // 10 s of records at one every 10 ms are alive; the rest have gone.
    assert!(backend.len() < 1_300, "{} records held", backend.len());
}

#[tokio::test(start_paused = true)]
async fn a_renewed_record_is_not_swept_before_it_expires() {
    let backend = MemoryBackend::new();
    let policy = ClaimPolicy::new(Duration::from_secs(10)).with_lease(Duration::from_secs(4));
    let claim = Claim::first(Fingerprint::NONE, &policy);
    let acquired = backend.claim(&key(0), &claim).await.expect("no I/O");
    assert_eq!(acquired, Acquisition::Acquired);
    for _ in 0..10 {
        tokio::time::advance(Duration::from_secs(2)).await;
        let renewed = backend.renew(&key(0), &claim).await.expect("no I/O");
        assert_eq!(renewed, Fenced::Applied);
    }
    // So many that every shard is swept.
    let sweep = async |numbers| {
        for number in numbers {
            let other = Claim::first(Fingerprint::NONE, &policy);
            let acquired = backend.claim(&key(number), &other).await.expect("no I/O");
            assert_eq!(acquired, Acquisition::Acquired);
        }
    };
    sweep(1..2_000).await;
    let completed = backend
        .complete(&key(0), &claim, &Completion::NotStored, claim.ttl)
        .await;
    assert_eq!(completed.expect("no I/O"), Fenced::Applied);
    tokio::time::advance(Duration::from_secs(9)).await;
    sweep(2_000..4_000).await;
    let late = Claim::first(Fingerprint::NONE, &policy);
    let found = backend.claim(&key(0), &late).await.expect("no I/O");
    assert!(
        matches!(found, Acquisition::Existing(Record::Completed { .. })),
        "{found:?}"
    );
}

#[tokio::test]
async fn released_records_leave_memory_at_once() {
    let backend = MemoryBackend::new();
    let claim = Claim::first(Fingerprint::NONE, &ClaimPolicy::new(Duration::from_hours(24)));
    for number in 0..100 {
        let _ = backend.claim(&key(number), &claim).await;
        let _ = backend.release(&key(number), &claim).await;
    }
    assert!(backend.is_empty());
    assert!(backend.shards.iter().all(|shard| lock(shard).expiries.is_empty()));
}
