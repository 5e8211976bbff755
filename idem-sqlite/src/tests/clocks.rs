//! Reboots, and the time of day.

use super::*;

/// After a reboot the boot clock starts anew, and the boot id is another one.
#[tokio::test]
async fn after_a_reboot_every_lease_has_lapsed_and_every_answer_is_still_there() {
    let file = OnFile::start().await;
    let dead = claimed(&file.backend, "claimed").await;
    let done = claimed(&file.backend, "done").await;
    let answer = Completion::Stored(bytes::Bytes::from_static(b"201"));
    let completed = file.backend.complete(&key("done"), &done, &answer, POLICY.ttl()).await;
    assert_eq!(completed.expect("a healthy file"), Fenced::Applied);

    let reboot = "UPDATE idem_records SET boot = 'another boot', lapses_ns = 9000000000000000000";
    assert_eq!(execute(&mut file.stranger().await, reboot).await, 2);

    let next = Claim::first(Fingerprint::NONE, &POLICY);
    let found = file
        .backend
        .claim(&key("claimed"), &next)
        .await
        .expect("a healthy file");
    let Acquisition::Existing(Record::Claimed { claim, remaining }) = found else {
        panic!("{found:?}");
    };
    assert_eq!((&claim, remaining), (&dead, Duration::ZERO));
    let taken = file.backend.take_over(&key("claimed"), &dead, &next).await;
    assert_eq!(taken.expect("a healthy file"), Acquisition::Acquired);
    let superseded = file.backend.renew(&key("claimed"), &dead).await;
    assert_eq!(superseded.expect("a healthy file"), Fenced::Superseded);
    let held = file.backend.read(&key("claimed")).await.expect("a healthy file");
    assert!(matches!(held, Some(Record::Claimed { remaining, .. }) if !remaining.is_zero()));

    let replayed = file.backend.claim(&key("done"), &next).await.expect("a healthy file");
    assert!(
        matches!(&replayed, Acquisition::Existing(Record::Completed { completion, .. }) if *completion == answer),
        "{replayed:?}"
    );
}

/// An owner that was renewed after all, because only its process stalled, counts from this boot.
#[tokio::test]
async fn a_lease_of_another_boot_that_is_renewed_holds() {
    let file = OnFile::start().await;
    let claim = claimed(&file.backend, "k").await;
    execute(
        &mut file.stranger().await,
        "UPDATE idem_records SET boot = 'another boot'",
    )
    .await;
    let renewed = file.backend.renew(&key("k"), &claim).await.expect("a healthy file");
    assert_eq!(renewed, Fenced::Applied);
    let other = Claim::first(Fingerprint::NONE, &POLICY);
    let taken = file.backend.take_over(&key("k"), &claim, &other).await;
    assert!(
        matches!(taken, Ok(Acquisition::Existing(Record::Claimed { .. }))),
        "{taken:?}"
    );
}

/// The time of day was stepped forward, past the end of the record, while its owner runs.
#[tokio::test]
async fn a_claim_whose_lease_holds_does_not_expire_however_the_time_of_day_is_stepped() {
    let file = OnFile::start().await;
    let claim = claimed(&file.backend, "k").await;
    assert_eq!(
        execute(&mut file.stranger().await, "UPDATE idem_records SET expires_ms = 0").await,
        1
    );
    let other = Claim::first(Fingerprint::NONE, &POLICY);
    let found = file.backend.claim(&key("k"), &other).await.expect("a healthy file");
    assert!(
        matches!(found, Acquisition::Existing(Record::Claimed { .. })),
        "{found:?}"
    );
    let taken = file.backend.take_over(&key("k"), &claim, &other).await;
    assert!(
        matches!(taken, Ok(Acquisition::Existing(Record::Claimed { .. }))),
        "{taken:?}"
    );
    assert_eq!(file.backend.sweep(10).await.expect("a healthy file"), 0);
    let completed = file
        .backend
        .complete(&key("k"), &claim, &Completion::NotStored, claim.ttl)
        .await;
    assert_eq!(completed.expect("a healthy file"), Fenced::Applied);
}

#[tokio::test]
async fn what_has_expired_is_swept_and_nothing_else() {
    let file = OnFile::start().await;
    for name in ["a", "b", "c"] {
        let claim = claimed(&file.backend, name).await;
        let completed = file
            .backend
            .complete(&key(name), &claim, &Completion::NotStored, claim.ttl)
            .await;
        assert_eq!(completed.expect("a healthy file"), Fenced::Applied);
    }
    let expire = format!("UPDATE idem_records SET expires_ms = 0 WHERE key <> '{}'", key("c"));
    assert_eq!(execute(&mut file.stranger().await, &expire).await, 2);
    assert_eq!(file.backend.sweep(1).await.expect("a healthy file"), 1);
    assert_eq!(file.backend.sweep(10).await.expect("a healthy file"), 1);
    assert!(file.backend.read(&key("c")).await.expect("a healthy file").is_some());
}
