//! Other connections to the same file.

use tokio::time::timeout;

use super::*;

/// A call that is given up while the file is locked is never made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_stranger_writes_claims_wait_and_those_given_up_are_never_written() {
    let file = OnFile::start().await;
    let done = claimed(&file.backend, "done").await;
    let completed = file
        .backend
        .complete(&key("done"), &done, &Completion::NotStored, done.ttl)
        .await;
    assert_eq!(completed.expect("a healthy file"), Fenced::Applied);

    let mut stranger = file.stranger().await;
    execute(&mut stranger, "BEGIN IMMEDIATE").await;
    let given_up = Claim::first(Fingerprint::NONE, &POLICY);
    let (first, second) = (key("given up"), key("waits"));
    let given_up = timeout(Duration::from_millis(200), file.backend.claim(&first, &given_up)).await;
    assert!(given_up.is_err(), "{given_up:?}");
    let claim = Claim::first(Fingerprint::NONE, &POLICY);
    let backend = file.backend.clone();
    let waiting = tokio::spawn(async move { backend.claim(&second, &claim).await });
    // A replay is read past the writer.
    let found = file
        .backend
        .claim(&key("done"), &Claim::first(Fingerprint::NONE, &POLICY))
        .await;
    assert!(
        matches!(found, Ok(Acquisition::Existing(Record::Completed { .. }))),
        "{found:?}"
    );
    assert!(!waiting.is_finished());
    execute(&mut stranger, "ROLLBACK").await;
    let acquired = waiting.await.expect("no panic");
    assert_eq!(acquired.expect("the lock is gone"), Acquisition::Acquired);
    assert_eq!(file.backend.read(&first).await.expect("a healthy file"), None);
}

/// The end of a claim reaches a waiter on another connection, and the next claim of the key does not hide it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_hears_of_a_claim_that_ends_elsewhere_also_if_another_one_follows_at_once() {
    let file = OnFile::start().await;
    let other = file.other().await;
    let claim = claimed(&other, "k").await;
    let changed = file.backend.changed(&key("k")).await.expect("a healthy file");
    let mut stranger = file.stranger().await;
    let swap = "UPDATE idem_records SET token = x'000102030405060708090a0b0c0d0e0f'";
    assert_eq!(execute(&mut stranger, swap).await, 1);
    timeout(Duration::from_secs(10), changed).await.expect("it is told");
    let released = other.release(&key("k"), &claim).await.expect("a healthy file");
    assert_eq!(released, Fenced::Superseded);
}

/// Sixteen at a time on two backends, as two processes have them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_claims_of_two_writers_are_all_made() {
    let file = OnFile::start().await;
    let backends = [file.backend.clone(), file.other().await];
    let mut claims = tokio::task::JoinSet::new();
    for number in 0..200 {
        let backend = backends[number % 2].clone();
        claims.spawn(async move {
            let claim = claimed(&backend, &number.to_string()).await;
            let key = key(&number.to_string());
            let completed = backend.complete(&key, &claim, &Completion::NotStored, claim.ttl).await;
            assert_eq!(completed.expect("a healthy file"), Fenced::Applied);
        });
    }
    claims.join_all().await;
}
