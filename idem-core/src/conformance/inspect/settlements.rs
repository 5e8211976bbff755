//! Clauses 25 to 27: what a settlement changes.

use super::*;
use crate::Fenced;
use crate::inspect::{Listed, Phase, Selection, Unreadable};

/// Every settlement, with a step changed that a record may have.
fn every_settlement() -> [Settlement; 4] {
    let name = "charge".to_owned();
    [
        Settlement::Forget,
        rerun(None),
        rerun(Some(StepChange::NotDone { name })),
        completion(b"new", LONG),
    ]
}

/// Clause 25.
pub async fn clause_25_a_record_at_another_version_is_not_settled<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let absent = fresh_key();
    let version = RecordVersion::new(Token::random(), Phase::Claimed);
    for settlement in every_settlement() {
        assert_eq!(kit.force(&absent, version, &settlement).await, Settled::Changed);
    }
    assert_eq!(kit.found(&absent).await, None);
    for (state, key, token) in kit.each_state().await {
        let before = kit.shown(&key).await;
        let right = before.version();
        let other = RecordVersion {
            token: Token::random(),
            ..right
        };
        let phases = [Phase::Claimed, Phase::Parked, Phase::Completed];
        let others = phases.into_iter().filter(|phase| *phase != right.phase);
        let others = others.map(|phase| RecordVersion::new(token, phase));
        for version in others.chain([other]) {
            for settlement in every_settlement() {
                let settled = kit.force(&key, version, &settlement).await;
                assert_eq!(settled, Settled::Changed, "{state}: {version} {settlement:?}");
            }
        }
        let after = kit.shown(&key).await;
        assert_eq!(
            (after.record.clone(), after.version()),
            (before.record, right),
            "{state}"
        );
    }
}

/// Clause 25: what cannot be read may be live. Its steps go with it.
pub async fn clause_25_a_record_that_cannot_be_read_is_forgotten_by_force_alone<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let mine = claim(LONG, LONG);
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    assert_eq!(kit.record_step(&key, &mine, "charge", b"1").await, Fenced::Applied);
    if !kit.0.spoil(&key).await {
        return;
    }
    let selection = Selection::of_key(&key);
    let listed = kit.scan(&selection, 10).await;
    let Some(Listed::Unreadable(Unreadable {
        version: Some(version), ..
    })) = listed.get(key.as_str())
    else {
        panic!("a record that cannot be read has a version: {listed:?}");
    };
    assert_eq!(version.phase, Phase::Unreadable);
    let inspector = kit.inspector();
    for settlement in every_settlement() {
        let refused = inspector.settle(&key, *version, &settlement, LiveClaim::Refuse).await;
        assert!(refused.is_err(), "{settlement:?}: {refused:?}");
        if settlement != Settlement::Forget {
            let refused = inspector.settle(&key, *version, &settlement, LiveClaim::Force).await;
            assert!(refused.is_err(), "{settlement:?}: {refused:?}");
        }
    }
    let other = RecordVersion::new(Token::random(), Phase::Unreadable);
    assert_eq!(kit.force(&key, other, &Settlement::Forget).await, Settled::Changed);
    assert_eq!(kit.scan(&selection, 10).await, listed);
    assert_eq!(kit.force(&key, *version, &Settlement::Forget).await, Settled::Applied);
    assert_eq!(kit.force(&key, *version, &Settlement::Forget).await, Settled::Changed);
    assert_eq!(kit.found(&key).await, None);
    let next = claim(LONG, LONG);
    assert_eq!(kit.claim(&key, &next).await, Acquisition::Acquired);
    assert_eq!(kit.record_step(&key, &next, "mail", b"2").await, Fenced::Applied);
    let steps = kit.shown(&key).await.steps;
    assert_eq!(steps, [("mail".to_owned(), Bytes::from_static(b"2"))]);
    // A version of what could not be read is none of a record that can be.
    assert_eq!(kit.force(&key, *version, &Settlement::Forget).await, Settled::Changed);
}

/// Clause 25: an owner that is late has recorded a step since the operator looked.
pub async fn clause_25_a_record_whose_steps_have_changed_is_not_settled<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    for begins_with_steps in [true, false] {
        let key = fresh_key();
        let mine = claim(SHORT, LONG);
        assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
        if begins_with_steps {
            assert_eq!(
                kit.record_step(&key, &mine, "charge", b"\x01\x01").await,
                Fenced::Applied
            );
        }
        kit.wait_until_lapsed(&key).await;
        let seen = kit.version(&key).await;
        assert_eq!(
            kit.record_step(&key, &mine, "charge", b"\x01\x02").await,
            Fenced::Applied
        );
        kit.wait_until_lapsed(&key).await;
        for settlement in every_settlement() {
            assert_eq!(
                kit.settle(&key, seen, &settlement).await,
                Settled::Changed,
                "{settlement:?}"
            );
            assert_eq!(
                kit.force(&key, seen, &settlement).await,
                Settled::Changed,
                "{settlement:?}"
            );
        }
        assert_eq!(kit.shown(&key).await.steps.len(), 1);
        let now = kit.version(&key).await;
        assert_eq!(kit.settle(&key, now, &Settlement::Forget).await, Settled::Applied);
    }
}

/// Clause 25.
pub async fn clause_25_a_live_claim_is_settled_by_force_alone<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    for with_steps in [false, true] {
        for settlement in every_settlement() {
            let key = fresh_key();
            // It was renewed before, which some stores write down elsewhere.
            let mine = claim(SHORT, LONG);
            let long = claim(LONG, LONG);
            let mine = if with_steps { long } else { mine };
            assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
            if with_steps {
                let _ = kit.record_step(&key, &mine, "charge", b"1").await;
                let _ = kit.record_step(&key, &mine, "mail", b"2").await;
            }
            assert_eq!(kit.renew(&key, &mine).await, Fenced::Applied);
            let version = kit.version(&key).await;
            let settled = kit.settle(&key, version, &settlement).await;
            if let Settled::Live(left) = settled {
                assert!(!left.is_zero() && left <= mine.lease, "{left:?}");
                assert!(
                    matches!(kit.found(&key).await, Some(Record::Claimed { claim, .. }) if claim.token == mine.token)
                );
                assert_eq!(kit.force(&key, version, &settlement).await, Settled::Applied);
            } else {
                // A short lease may have lapsed meanwhile.
                assert_eq!((settled, with_steps), (Settled::Applied, false));
            }
            assert_eq!(kit.renew(&key, &mine).await, Fenced::Superseded, "{settlement:?}");
        }
    }
    // A claim that is renewed again and again stays live, however short its lease is.
    let key = fresh_key();
    let mine = claim(LONG, LONG);
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    for _ in 0..3 {
        assert_eq!(kit.renew(&key, &mine).await, Fenced::Applied);
        let version = kit.version(&key).await;
        assert!(matches!(
            kit.settle(&key, version, &Settlement::Forget).await,
            Settled::Live(_)
        ));
    }
}

/// Clause 26.
pub async fn clause_26_forgetting_removes_a_record_of_any_phase_with_its_steps<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    for (state, key, _) in kit.each_state().await {
        let version = kit.version(&key).await;
        assert_eq!(
            kit.settle(&key, version, &Settlement::Forget).await,
            Settled::Applied,
            "{state}"
        );
        assert_eq!(kit.found(&key).await, None, "{state}");
        assert_eq!(
            kit.settle(&key, version, &Settlement::Forget).await,
            Settled::Changed,
            "{state}"
        );
        let next = claim(LONG, LONG);
        assert_eq!(kit.claim(&key, &next).await, Acquisition::Acquired, "{state}");
        assert!(kit.shown(&key).await.steps.is_empty(), "{state}");
        let _ = kit.record_step(&key, &next, "new", b"1").await;
        assert_eq!(
            kit.read_steps(&key, &next).await.map(|steps| steps.len()),
            Some(1),
            "{state}"
        );
    }
    // A large answer goes with its record.
    let key = fresh_key();
    let mine = claim(LONG, LONG);
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    let large = Completion::Stored(vec![7; 200 * 1024].into());
    let _ = kit.complete_with(&key, &mine, &large).await;
    let version = kit.version(&key).await;
    assert_eq!(kit.settle(&key, version, &Settlement::Forget).await, Settled::Applied);
    assert_eq!(kit.claim(&key, &claim(LONG, LONG)).await, Acquisition::Acquired);
}

/// Clause 26.
pub async fn clause_26_a_rerun_keeps_the_steps_and_parks_the_record<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    for (state, key, old) in kit.each_state().await {
        if !matches!(state, "lapsed with steps" | "parked") {
            continue;
        }
        let version = kit.version(&key).await;
        let settlement = rerun(None);
        let Settlement::Rerun { token, .. } = settlement else {
            unreachable!("it is a rerun");
        };
        assert_ne!(token, old, "{state}");
        assert_eq!(
            kit.settle(&key, version, &settlement).await,
            Settled::Applied,
            "{state}"
        );
        let again = kit.settle(&key, version, &settlement).await;
        assert_eq!(again, Settled::Applied, "{state}: repeated");
        let other = kit.settle(&key, version, &rerun(None)).await;
        assert_eq!(other, Settled::Changed, "{state}: another one");
        let shown = kit.shown(&key).await;
        assert_eq!(
            shown.version(),
            RecordVersion {
                token,
                phase: Phase::Parked,
                ..version
            },
            "{state}"
        );
        assert_eq!(shown.summary.began_at, rerun_at(), "{state}");
        assert_eq!(shown.steps.len(), 2, "{state}");
        let Record::Parked { claim: parked } = shown.record else {
            panic!("{state}: {:?}", shown.record);
        };
        let next = claim(LONG, LONG);
        let taken = kit.take_over(&key, &parked, &next).await;
        assert_eq!(taken, Acquisition::Acquired, "{state}");
        let steps = kit.read_steps(&key, &next).await.unwrap_or_default();
        assert_eq!(steps.into_keys().collect::<Vec<_>>(), ["charge", "mail"], "{state}");
    }
}

/// Clause 26.
pub async fn clause_26_a_rerun_changes_one_step<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let step = |name: &str, step: &'static [u8]| StepChange::Done {
        name: name.to_owned(),
        step: step.into(),
    };
    let not_done = |name: &str| StepChange::NotDone { name: name.to_owned() };
    for (state, key, _) in kit.each_state().await {
        if !matches!(state, "lapsed with steps" | "parked") {
            continue;
        }
        for (change, expected) in [
            (step("charge", b"9"), &[("charge", "9"), ("mail", "2")][..]),
            (step("new", b"\0\xFF"), &[("charge", "9"), ("mail", "2"), ("new", "?")]),
            (not_done("new"), &[("charge", "9"), ("mail", "2")]),
            (not_done("absent"), &[("charge", "9"), ("mail", "2")]),
            (not_done("charge"), &[("mail", "2")]),
        ] {
            let version = kit.version(&key).await;
            let settled = kit.settle(&key, version, &rerun(Some(change.clone()))).await;
            assert_eq!(settled, Settled::Applied, "{state}: {change:?}");
            let mut steps = kit.shown(&key).await.steps;
            steps.sort();
            let names: Vec<_> = steps.iter().map(|(name, _)| name.as_str()).collect();
            let expected_names: Vec<_> = expected.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, expected_names, "{state}: {change:?}");
            for ((_, step), (_, expected)) in steps.iter().zip(expected) {
                let is_binary = *expected == "?";
                assert!(if is_binary {
                    step[..] == *b"\0\xFF"
                } else {
                    step[..] == *expected.as_bytes()
                });
            }
        }
        // Without its last step a record is removed.
        let version = kit.version(&key).await;
        let last = rerun(Some(not_done("mail")));
        assert_eq!(kit.settle(&key, version, &last).await, Settled::Applied, "{state}");
        assert_eq!(kit.found(&key).await, None, "{state}");
    }
    // A claim without steps gets its first one.
    let key = fresh_key();
    let mine = claim(SHORT, LONG);
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    kit.wait_until_lapsed(&key).await;
    let version = kit.version(&key).await;
    let first = rerun(Some(step("charge", b"1")));
    assert_eq!(kit.settle(&key, version, &first).await, Settled::Applied);
    assert!(matches!(kit.found(&key).await, Some(Record::Parked { claim }) if claim.has_steps));
    assert_eq!(kit.shown(&key).await.steps.len(), 1);
}

/// Clause 26.
pub async fn clause_26_a_rerun_of_a_record_without_steps_removes_it<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    for (state, key, _) in kit.each_state().await {
        if matches!(state, "lapsed with steps" | "parked") {
            continue;
        }
        let version = kit.version(&key).await;
        assert_eq!(
            kit.settle(&key, version, &rerun(None)).await,
            Settled::Applied,
            "{state}"
        );
        assert_eq!(kit.found(&key).await, None, "{state}");
    }
}

/// Clause 27.
pub async fn clause_27_a_completion_replaces_a_record_of_any_phase_for_its_ttl<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    for outcome in [
        Completion::Stored(Bytes::from_static(b"\0new\xFF")),
        Completion::NotStored,
        Completion::Unknown,
    ] {
        for (state, key, token) in kit.each_state().await {
            let version = kit.version(&key).await;
            let settlement = Settlement::complete(outcome.clone(), LONG);
            assert_eq!(
                kit.settle(&key, version, &settlement).await,
                Settled::Applied,
                "{state}"
            );
            let shown = kit.shown(&key).await;
            let expected = Record::Completed {
                fingerprint: REQUEST,
                completion: outcome.clone(),
            };
            assert_eq!(shown.record, expected, "{state}");
            assert_ne!(shown.summary.token, token, "{state}");
            assert_eq!(shown.summary.began_at, time_from_millis(1_764_000_000_123), "{state}");
            assert_eq!(shown.summary.owner.as_str(), "kit:1", "{state}");
            assert!(shown.steps.is_empty(), "{state}");
        }
    }
    // It expires, and the next claim has no steps.
    for (state, key, _) in kit.each_state().await {
        let version = kit.version(&key).await;
        assert_eq!(
            kit.settle(&key, version, &completion(b"new", SHORT)).await,
            Settled::Applied,
            "{state}"
        );
        kit.wait_until_absent(&key).await;
        assert!(kit.shown(&key).await.steps.is_empty(), "{state}");
    }
}

/// Clause 27.
pub async fn clause_27_a_completion_repeated_is_applied_and_does_not_prolong_the_record<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    for (state, key, _) in kit.each_state().await {
        let version = kit.version(&key).await;
        let settlement = completion(b"new", LONG);
        assert_eq!(
            kit.settle(&key, version, &settlement).await,
            Settled::Applied,
            "{state}"
        );
        let before = kit.shown(&key).await.summary;
        let Settlement::Complete { token, .. } = settlement else {
            unreachable!("it is a completion");
        };
        let again = Settlement::Complete {
            token,
            completion: Completion::Unknown,
            ttl: LONG * 2,
        };
        assert_eq!(kit.settle(&key, version, &again).await, Settled::Applied, "{state}");
        let after = kit.shown(&key).await.summary;
        assert!(after.expires_in <= before.expires_in, "{state}");
        assert_eq!(after.state, before.state, "{state}");
    }
}
