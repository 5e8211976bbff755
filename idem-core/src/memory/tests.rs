use std::time::Duration;

use super::room::ENTRY_BYTES;
use super::shard::LATE;
use super::*;
use crate::{BackendErrorKind, ClaimPolicy, Fingerprint, IdempotencyKey, Scope};

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
    assert!(backend.shards.iter().all(|shard| lock(shard).has_no_expiry()));
    assert_eq!(backend.bytes(), 0);
}

const TTL: Duration = Duration::from_secs(10);

fn policy() -> ClaimPolicy {
    ClaimPolicy::new(TTL).with_lease(Duration::from_secs(1))
}

async fn claimed(backend: &MemoryBackend, number: u32) -> Result<Claim, BackendError> {
    let claim = Claim::first(Fingerprint::NONE, &policy());
    let acquired = backend.claim(&key(number), &claim).await?;
    assert_eq!(acquired, Acquisition::Acquired);
    Ok(claim)
}

fn answer(len: usize) -> Completion {
    Completion::Stored(vec![7; len].into())
}

/// As many bytes as so many claims take, under keys of one digit.
fn room_for(claims: usize) -> usize {
    claims * (ENTRY_BYTES + key(0).as_str().len())
}

#[tokio::test(start_paused = true)]
async fn a_new_claim_is_refused_when_there_is_no_room_and_nothing_is_evicted() {
    let backend = MemoryBackend::new().with_max_bytes(room_for(2));
    let first = claimed(&backend, 0).await.expect("there is room");
    let _second = claimed(&backend, 1).await.expect("there is room");
    let refused = claimed(&backend, 2).await.expect_err("there is none");
    assert_eq!(refused.kind(), BackendErrorKind::Unavailable);
    assert!(refused.is_not_written(), "{refused}");
    assert!(refused.to_string().contains("with_max_bytes"), "{refused}");
    assert_eq!(backend.len(), 2);
    let again = backend.claim(&key(0), &first).await.expect("no room is needed");
    assert_eq!(again, Acquisition::Acquired);
    let other = Claim::first(Fingerprint::NONE, &policy());
    let existing = backend.claim(&key(1), &other).await.expect("no room is needed");
    assert!(matches!(existing, Acquisition::Existing(_)), "{existing:?}");
}

#[tokio::test(start_paused = true)]
async fn an_owner_renews_completes_and_releases_without_room_and_an_outcome_may_exceed_the_bound() {
    let backend = MemoryBackend::new().with_max_bytes(room_for(2));
    let (first, second) = (
        claimed(&backend, 0).await.expect("there is room"),
        claimed(&backend, 1).await.expect("there is room"),
    );
    let renewed = backend.renew(&key(0), &first).await.expect("no I/O");
    assert_eq!(renewed, Fenced::Applied);
    let completed = backend
        .complete(&key(0), &first, &answer(5_000), first.ttl)
        .await
        .expect("no I/O");
    assert_eq!(completed, Fenced::Applied);
    assert_eq!(backend.bytes(), room_for(2) + 5_000);
    let repeated = backend
        .complete(&key(0), &first, &answer(5_000), first.ttl)
        .await
        .expect("no I/O");
    assert_eq!(repeated, Fenced::Applied);
    assert_eq!(backend.bytes(), room_for(2) + 5_000);
    let released = backend.release(&key(1), &second).await.expect("no I/O");
    assert_eq!(released, Fenced::Applied);
    assert_eq!(backend.bytes(), room_for(1) + 5_000);
    let found = backend.claim(&key(0), &second).await.expect("no room is needed");
    let Acquisition::Existing(Record::Completed { completion, .. }) = found else {
        panic!("{found:?}");
    };
    assert_eq!(completion, answer(5_000));
}

#[tokio::test(start_paused = true)]
async fn a_lapsed_claim_is_taken_over_without_room() {
    let backend = MemoryBackend::new().with_max_bytes(room_for(1));
    let dead = claimed(&backend, 0).await.expect("there is room");
    tokio::time::advance(Duration::from_secs(2)).await;
    let next = Claim::first(Fingerprint::NONE, &policy());
    let taken = backend
        .take_over(&key(0), &dead, &next)
        .await
        .expect("no room is needed");
    assert_eq!(taken, Acquisition::Acquired);
    let absent = backend
        .take_over(&key(1), &dead, &next)
        .await
        .expect_err("a claim like any");
    assert_eq!(absent.kind(), BackendErrorKind::Unavailable);
    assert_eq!(backend.bytes(), room_for(1));
}

#[tokio::test(start_paused = true)]
async fn expired_records_of_every_shard_make_room() {
    let backend = MemoryBackend::new().with_max_bytes(room_for(9) + 9_000);
    for number in 0..9 {
        let claim = claimed(&backend, number).await.expect("there is room");
        let _ = backend.complete(&key(number), &claim, &answer(1_000), claim.ttl).await;
    }
    // A claim sweeps its own shard before it asks for room. Which shard a key has differs from process to process.
    let shards: Vec<usize> = (0..9).map(|number| key(number).shard(SHARDS)).collect();
    let elsewhere = (10..100)
        .find(|number| !shards.contains(&key(*number).shard(SHARDS)))
        .expect("nine keys are in nine shards at most");
    let full = claimed(&backend, elsewhere).await.expect_err("nothing has expired");
    assert_eq!(full.kind(), BackendErrorKind::Unavailable);
    tokio::time::advance(TTL + TTL / LATE).await;
    let claim = claimed(&backend, elsewhere).await.expect("all have expired");
    let released = backend.release(&key(elsewhere), &claim).await.expect("no I/O");
    assert_eq!((released, backend.bytes()), (Fenced::Applied, 0));
}

/// A claim is swept when its lease and `ttl` have passed. A completion lives for `ttl` only.
#[tokio::test(start_paused = true)]
async fn a_completed_record_makes_room_when_it_expires_however_long_its_lease_was() {
    let policy = ClaimPolicy::new(TTL).with_lease(Duration::from_hours(1));
    let backend = MemoryBackend::new().with_max_bytes(room_for(1));
    let claim = Claim::first(Fingerprint::NONE, &policy);
    let _acquired = backend.claim(&key(0), &claim).await.expect("there is room");
    let _ = backend.complete(&key(0), &claim, &answer(10), claim.ttl).await;
    tokio::time::advance(TTL).await;
    let _claim = claimed(&backend, 1).await.expect("it has expired");
    assert_eq!(backend.bytes(), room_for(1));
}

#[tokio::test(start_paused = true)]
async fn an_expired_record_gives_its_bytes_back_to_the_claim_that_replaces_it() {
    let backend = MemoryBackend::new().with_max_bytes(room_for(1));
    let claim = claimed(&backend, 0).await.expect("there is room");
    let _ = backend.complete(&key(0), &claim, &answer(3_000), claim.ttl).await;
    tokio::time::advance(TTL).await;
    let _claim = claimed(&backend, 0).await.expect("its own place");
    assert_eq!(backend.bytes(), room_for(1));
}

/// Clause 14.
#[tokio::test(start_paused = true)]
async fn the_check_fails_while_there_is_no_room() {
    let backend = MemoryBackend::new().with_max_bytes(room_for(2));
    backend.check().await.expect("there is room");
    let claim = claimed(&backend, 0).await.expect("there is room");
    let _ = backend.complete(&key(0), &claim, &answer(ENTRY_BYTES), claim.ttl).await;
    let full = backend.check().await.expect_err("there is none");
    assert_eq!(full.kind(), BackendErrorKind::Unavailable);
    assert_eq!(backend.len(), 1);
    tokio::time::advance(TTL + TTL / LATE).await;
    backend.check().await.expect("it has expired");
}

#[tokio::test]
async fn the_bound_holds_for_clones_and_may_be_changed() {
    let backend = MemoryBackend::new();
    let clone = backend.clone().with_max_bytes(0);
    assert!(claimed(&backend, 0).await.is_err());
    let _raised = clone.with_max_bytes(room_for(1));
    assert!(claimed(&backend, 0).await.is_ok());
}

/// The bytes are counted by all threads at once, and all of them are given back.
#[test]
fn after_everything_has_expired_and_was_swept_no_byte_is_counted() {
    const THREADS: u32 = 8;
    const ROUNDS: u32 = 6_000;
    let backend = MemoryBackend::new().with_max_bytes(room_for(20_000));
    let policy = ClaimPolicy::new(ClaimPolicy::MIN).with_lease(ClaimPolicy::MIN);
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
    };
    std::thread::scope(|threads| {
        for thread in 0..THREADS {
            let backend = &backend;
            threads.spawn(move || {
                runtime().block_on(async {
                    for round in 0..ROUNDS {
                        // Half of the keys are shared with the other threads.
                        let key = key(if round % 2 == 0 {
                            round
                        } else {
                            round * THREADS + thread
                        });
                        let claim = Claim::first(Fingerprint::NONE, &policy);
                        let Ok(Acquisition::Acquired) = backend.claim(&key, &claim).await else {
                            continue;
                        };
                        match round % 3 {
                            0 => drop(backend.complete(&key, &claim, &answer(round as usize), claim.ttl).await),
                            1 => drop(backend.release(&key, &claim).await),
                            _ => drop(backend.renew(&key, &claim).await),
                        }
                    }
                });
            });
        }
    });
    let counted = |shard: &Mutex<Shard>| lock(shard).counted();
    assert_eq!(backend.bytes(), backend.shards.iter().map(counted).sum::<usize>());
    let later = Instant::now() + Duration::from_secs(1);
    for shard in backend.shards.iter() {
        lock(shard).sweep(later, usize::MAX);
    }
    assert_eq!((backend.len(), backend.bytes()), (0, 0));
}
