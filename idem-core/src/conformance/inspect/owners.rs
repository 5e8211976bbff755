//! Clauses 28 and 29: what owners and waiters learn of a settlement.

use futures_util::future::join_all;
use tokio::time::timeout;

use super::*;
use crate::{Claim, Fenced};

const ROUNDS: usize = 20;

fn with_steps(claim: &Claim) -> Claim {
    Claim {
        has_steps: true,
        ..claim.clone()
    }
}

/// Clause 28.
pub async fn clause_28_the_owner_of_a_settled_claim_is_superseded<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    for steps in [false, true] {
        for settlement in [Settlement::Forget, rerun(None), completion(b"by the operator", LONG)] {
            let key = fresh_key();
            let mine = claim(LONG, LONG);
            assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
            if steps {
                let _ = kit.record_step(&key, &mine, "charge", b"1").await;
            }
            let version = kit.version(&key).await;
            assert_eq!(kit.force(&key, version, &settlement).await, Settled::Applied);
            let after = kit.found(&key).await;
            for held in [mine.clone(), with_steps(&mine)] {
                assert_eq!(kit.renew(&key, &held).await, Fenced::Superseded, "{settlement:?}");
                assert_eq!(
                    kit.complete(&key, &held, b"late").await,
                    Fenced::Superseded,
                    "{settlement:?}"
                );
                assert_eq!(kit.release(&key, &held).await, Fenced::Superseded, "{settlement:?}");
            }
            assert_eq!(kit.record_step(&key, &mine, "late", b"1").await, Fenced::Superseded);
            assert_eq!(kit.read_steps(&key, &mine).await, None);
            assert_eq!(kit.park(&key, &mine).await, Fenced::Superseded);
            let large = Completion::Stored(vec![7; 200 * 1024].into());
            assert_eq!(kit.complete_with(&key, &mine, &large).await, Fenced::Superseded);
            assert_eq!(kit.found(&key).await, after, "{settlement:?}");
        }
    }
}

/// Clause 28: the claim is settled by the operator or completed by its owner, and never both.
pub async fn clause_28_of_an_operator_and_an_owner_one_ends_the_claim<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    for round in 0..ROUNDS {
        let key = fresh_key();
        let mine = claim(LONG, LONG);
        assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
        if round % 2 == 0 {
            let _ = kit.record_step(&key, &mine, "charge", b"1").await;
        }
        let version = kit.version(&key).await;
        let settlement = [Settlement::Forget, rerun(None), completion(b"operator", LONG)][round % 3].clone();
        let held = if round % 2 == 0 { with_steps(&mine) } else { mine };
        let (settled, completed) = futures_util::join!(
            kit.force(&key, version, &settlement),
            kit.complete(&key, &held, b"owner"),
        );
        let ends = (settled, completed);
        let is_owners = matches!(kit.found(&key).await, Some(Record::Completed { completion: Completion::Stored(payload), .. }) if payload[..] == *b"owner");
        match ends {
            (Settled::Applied, Fenced::Superseded) => assert!(!is_owners, "{settlement:?}"),
            (Settled::Changed, Fenced::Applied) => assert!(is_owners, "{settlement:?}"),
            both => panic!("{both:?} of {settlement:?}"),
        }
    }
}

/// Clause 28.
pub async fn clause_28_of_many_operators_one_settles_the_record<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    for (state, key, _) in kit.each_state().await {
        let version = kit.version(&key).await;
        let settlements = [
            Settlement::Forget,
            completion(b"one", LONG),
            rerun(None),
            rerun(None),
            Settlement::Forget,
        ];
        let settled = join_all(
            settlements
                .iter()
                .map(|settlement| kit.settle(&key, version, settlement)),
        )
        .await;
        let applied = settled.iter().filter(|settled| **settled == Settled::Applied).count();
        assert_eq!(applied, 1, "{state}: {settled:?}");
    }
}

/// Clause 28: a lapsed claim is taken over or settled. If it is forgotten, the takeover claims what is absent.
pub async fn clause_28_an_operator_and_a_takeover_do_not_both_win<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    let mut races = Vec::new();
    for round in 0..ROUNDS {
        let key = fresh_key();
        let lapsed = claim(SHORT, LONG);
        assert_eq!(kit.claim(&key, &lapsed).await, Acquisition::Acquired);
        races.push((round, key, lapsed));
    }
    for (round, key, lapsed) in races {
        kit.wait_until_lapsed(&key).await;
        let version = kit.version(&key).await;
        let settlement = if round % 2 == 0 {
            completion(b"operator", LONG)
        } else {
            Settlement::Forget
        };
        let next = claim(LONG, LONG);
        let (settled, taken) = futures_util::join!(
            kit.settle(&key, version, &settlement),
            kit.take_over(&key, &lapsed, &next),
        );
        let found = kit.found(&key).await;
        match (&settlement, settled, taken) {
            (_, Settled::Changed, Acquisition::Acquired)
            | (Settlement::Forget, Settled::Applied, Acquisition::Acquired) => {
                assert!(matches!(found, Some(Record::Claimed { claim, .. }) if claim.token == next.token));
            }
            (Settlement::Complete { .. }, Settled::Applied, Acquisition::Existing(_)) => {
                assert!(matches!(found, Some(Record::Completed { .. })));
            }
            both => panic!("{both:?}"),
        }
    }
}

/// Clause 29.
pub async fn clause_29_whoever_listens_is_told_of_a_settlement<S: Subject>(subject: S) {
    let kit = Kit::new(subject);
    for steps in [false, true] {
        for settlement in [Settlement::Forget, rerun(None), completion(b"done", LONG)] {
            let key = fresh_key();
            let mine = claim(LONG, LONG);
            assert_eq!(kit.claim(&key, &mine).await, Acquisition::Acquired);
            if steps {
                let _ = kit.record_step(&key, &mine, "charge", b"1").await;
            }
            let listener = kit.changed(&key).await;
            let version = kit.version(&key).await;
            assert_eq!(kit.force(&key, version, &settlement).await, Settled::Applied);
            assert!(timeout(PATIENCE, listener).await.is_ok(), "{settlement:?}");
        }
    }
}
