//! Clauses 23, 24 and 30: what an operator sees.

use std::collections::BTreeMap;

use super::*;
use crate::inspect::{Listed, Page, RecordState, RecordSummary, Selection, StepState};
use crate::{IdempotencyKey, Owner, Scope};

impl<S: Subject> Kit<S> {
    /// All records of a selection by their keys, in pages of `limit`.
    pub(super) async fn scan(&self, selection: &Selection, limit: usize) -> BTreeMap<String, Listed> {
        let mut all = BTreeMap::new();
        let mut after = None;
        loop {
            let Page { records, next, .. } = healthy(self.inspector().scan(selection, after.as_ref(), limit).await);
            for listed in records {
                let name = match &listed {
                    Listed::Record(record) => record.key.to_string(),
                    Listed::Unreadable(unreadable) => unreadable.name.clone(),
                };
                all.insert(name, listed);
            }
            match next {
                Some(next) => after = Some(next),
                None => return all,
            }
        }
    }
}

fn key_of(operation: &str, scope: &str, key: &str) -> RecordKey {
    match RecordKey::new(operation, &Scope::of(scope), &IdempotencyKey::of(key)) {
        Ok(key) => key,
        Err(error) => unreachable!("{error}"),
    }
}

fn record(listed: Option<&Listed>) -> RecordSummary {
    match listed {
        Some(Listed::Record(record)) => record.clone(),
        other => panic!("{other:?} in the place of a record"),
    }
}

/// Clause 23.
pub async fn clause_23_a_scan_returns_every_record_that_stays_and_changes_nothing<S: Subject>(subject: S) {
    const RECORDS: usize = 120;
    let kit = Kit::new(subject);
    let scope = format!("{:?}", Token::random());
    let selection = healthy_key(Selection::all().with_scope(&Scope::of(&scope)));
    let mut keys = Vec::new();
    for number in 0..RECORDS {
        let key = key_of("scanned", &scope, &format!("k-{number}"));
        assert_eq!(kit.claim(&key, &claim(LONG, LONG)).await, Acquisition::Acquired);
        keys.push(key);
    }
    for limit in [1, 7, RECORDS, 10_000] {
        let found = kit.scan(&selection, limit).await;
        assert_eq!(found.len(), RECORDS, "in pages of {limit}");
        assert!(keys.iter().all(|key| found.contains_key(key.as_str())));
    }
    // Records come and go while a scan is under way. The others are found.
    let stay: Vec<_> = keys.iter().step_by(2).collect();
    let mut found = BTreeMap::new();
    let mut after = None;
    let mut going = keys.iter().skip(1).step_by(2);
    for round in 0.. {
        let page = healthy(kit.inspector().scan(&selection, after.as_ref(), 10).await);
        for listed in page.records {
            let record = record(Some(&listed));
            found.insert(record.key.to_string(), record);
        }
        if let Some(key) = going.next() {
            let version = kit.version(key).await;
            assert_eq!(kit.force(key, version, &Settlement::Forget).await, Settled::Applied);
        }
        let new = key_of("scanned", &scope, &format!("new-{round}"));
        if round < 40 {
            assert_eq!(kit.claim(&new, &claim(LONG, LONG)).await, Acquisition::Acquired);
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert!(stay.iter().all(|key| found.contains_key(key.as_str())));
    for key in stay {
        assert!(!kit.remaining(key).await.is_zero(), "a scan changes no record");
    }
}

fn healthy_key<T>(made: Result<T, crate::KeyError>) -> T {
    match made {
        Ok(made) => made,
        Err(error) => unreachable!("{error}"),
    }
}

/// Clause 23.
pub async fn clause_23_a_selection_leaves_out_every_other_record<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let unique = format!("{:?}", Token::random());
    let near = format!("{unique}x");
    // Characters that have a meaning in patterns.
    let operations = ["POST /a_b", "POST /axb", "POST /a%b", "POST /a*b", "POST /{id}"];
    for operation in operations {
        for scope in [&unique, &near] {
            for key in ["k", "k_"] {
                let key = key_of(operation, scope, key);
                assert_eq!(kit.claim(&key, &claim(LONG, LONG)).await, Acquisition::Acquired);
            }
        }
    }
    let of_scope = healthy_key(Selection::all().with_scope(&Scope::of(&unique)));
    assert_eq!(kit.scan(&of_scope, 3).await.len(), operations.len() * 2);
    for operation in operations {
        let of_operation = healthy_key(of_scope.clone().with_operation(operation));
        let found = kit.scan(&of_operation, 50).await;
        let expected = ["k", "k_"].map(|key| key_of(operation, &unique, key).to_string());
        assert_eq!(found.keys().cloned().collect::<Vec<_>>(), expected, "{operation}");
        let one = healthy_key(of_operation.with_key(&IdempotencyKey::of("k_")));
        assert_eq!(kit.scan(&one, 50).await.len(), 1, "{operation}");
    }
    let of_key = healthy_key(of_scope.with_key(&IdempotencyKey::of("k")));
    assert_eq!(kit.scan(&of_key, 50).await.len(), operations.len());
}

/// Clause 23.
pub async fn clause_23_a_record_that_cannot_be_read_is_listed<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    assert_eq!(kit.claim(&key, &claim(LONG, LONG)).await, Acquisition::Acquired);
    if !kit.0.spoil(&key).await {
        return;
    }
    let found = kit.scan(&Selection::all(), 1_000).await;
    assert!(
        matches!(found.get(key.as_str()), Some(Listed::Unreadable(_))),
        "{:?}",
        found.get(key.as_str())
    );
    assert!(kit.inspector().inspect(&key).await.is_err());
}

/// Clause 24, and what a scan shows of the same records.
pub async fn clause_24_inspecting_shows_each_part_of_a_record_in_each_state<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    assert_eq!(kit.details(&fresh_key()).await, None);
    let live = fresh_key();
    let mine = claim(LONG, LONG);
    assert_eq!(kit.claim(&live, &mine).await, Acquisition::Acquired);
    let mut records = kit.each_state().await;
    records.push(("live", live, mine.token));
    let listed = kit.scan(&Selection::all(), 1_000).await;
    for (state, key, token) in records {
        let shown = kit.shown(&key).await;
        let version = shown.version();
        let RecordDetails { summary, record, steps } = shown;
        assert_eq!(
            (&summary.key, summary.token, summary.attempt),
            (&key, token, 1),
            "{state}"
        );
        assert_eq!(summary.fingerprint, REQUEST, "{state}");
        assert_eq!(summary.began_at, time_from_millis(1_764_000_000_123), "{state}");
        assert_eq!(summary.owner, Owner::new("kit:1"), "{state}");
        let expires_in = summary.expires_in;
        let most = LONG + if state == "live" { LONG } else { Duration::ZERO };
        assert!(
            expires_in <= most && expires_in + PATIENCE * 2 > most,
            "{state}: {expires_in:?}"
        );
        let found = kit.found(&key).await;
        let is_like = match (&found, &record) {
            (Some(Record::Claimed { claim: one, .. }), Record::Claimed { claim, .. }) => one == claim,
            (found, record) => found.as_ref() == Some(record),
        };
        assert!(is_like, "{state}: {record:?} for {found:?}");
        let has_steps = matches!(state, "lapsed with steps" | "parked");
        let expected: Vec<(String, Bytes)> = if has_steps {
            vec![("charge".to_owned(), "1".into()), ("mail".to_owned(), "2".into())]
        } else {
            Vec::new()
        };
        let mut sorted = steps.clone();
        sorted.sort();
        assert_eq!(sorted, expected, "{state}");
        let in_list = self::record(listed.get(key.as_str()));
        assert!(
            in_list.version().is_none_or(|listed| listed == version),
            "{state}: {in_list:?}"
        );
        assert!(in_list.version().is_some() || has_steps, "{state}: {in_list:?}");
        assert_eq!(
            (in_list.owner, in_list.began_at),
            (summary.owner, summary.began_at),
            "{state}"
        );
        assert_shown(state, &summary.state);
    }
    shows_steps_and_large_answers(kit).await;
}

/// A record in this state is shown so.
fn assert_shown(state: &str, shown: &RecordState) {
    match (state, shown) {
        ("live", RecordState::Claimed { remaining, has_steps }) => assert!(!remaining.is_zero() && !has_steps),
        ("lapsed", RecordState::Claimed { remaining, has_steps }) => assert!(remaining.is_zero() && !has_steps),
        ("lapsed with steps", RecordState::Claimed { remaining, has_steps }) => {
            assert!(remaining.is_zero() && *has_steps);
        }
        ("parked", RecordState::Parked)
        | ("not stored", RecordState::NotStored)
        | ("unknown", RecordState::Unknown) => {}
        ("stored", RecordState::Stored { len: 3, head }) => assert_eq!(&head[..], b"old"),
        (state, shown) => panic!("{state}: {shown:?}"),
    }
}

async fn shows_steps_and_large_answers<S: Subject>(kit: Kit<S>) {
    const LARGE: usize = 200 * 1024;
    let key = fresh_key();
    let mine = claim(LONG, LONG);
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    let _ = kit.record_step(&key, &mine, "unreadable", b"\xFF").await;
    let steps = kit.shown(&key).await.steps();
    assert_eq!(steps.len(), 1);
    assert_eq!(
        (steps[0].name.as_str(), &steps[0].state),
        ("unreadable", &StepState::Unreadable)
    );
    let large = Completion::Stored(vec![7; LARGE].into());
    let _ = kit.complete_with(&key, &mine, &large).await;
    let shown = kit.shown(&key).await;
    assert!(matches!(&shown.record, Record::Completed { completion, .. } if *completion == large));
    assert!(matches!(shown.summary.state, RecordState::Stored { len, .. } if len == LARGE as u64));
    let listed = kit.scan(&Selection::all(), 1_000).await;
    let listed = record(listed.get(key.as_str()));
    assert!(matches!(listed.state, RecordState::Stored { len, .. } if len == LARGE as u64));
}

/// Clause 30.
pub async fn clause_30_a_diagnosis_reports_something_and_changes_nothing<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let key = fresh_key();
    let mine = claim(LONG, LONG);
    assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
    for _ in 0..2 {
        let findings = healthy(kit.inspector().diagnose().await);
        assert!(!findings.is_empty());
        assert!(
            findings
                .iter()
                .all(|finding| !finding.check.is_empty() && !finding.text.is_empty())
        );
    }
    assert_eq!(kit.renew(&key, &mine).await, crate::Fenced::Applied);
}
