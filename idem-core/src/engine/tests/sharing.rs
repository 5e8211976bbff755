//! What many requests, and failures, cost the backend (IDEM-21, IDEM-22): calls are counted.

use futures_util::future::join_all;

use super::*;

const OTHER: Fingerprint = Fingerprint::new(1, [2; 32]);
const WAITING: ClaimPolicy = POLICY.with_wait(Duration::from_mins(1));

/// A backend whose answers take ten milliseconds, and an engine over it.
fn slow() -> (Faulty, Engine) {
    let backend = Faulty::default();
    backend.fault.slow.store(true, Ordering::SeqCst);
    let engine = Engine::new(backend.clone());
    (backend, engine)
}

fn claims(backend: &Faulty) -> u32 {
    backend.calls.claims.swap(0, Ordering::SeqCst)
}

fn releases(backend: &Faulty) -> u32 {
    backend.calls.releases.swap(0, Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn idem_21_a_thousand_duplicates_are_two_looks_and_one_copy_of_the_bytes() {
    let (backend, engine) = slow();
    assert_eq!(execute(&engine, async { stored("201") }).await, executed("201"));
    assert_eq!(claims(&backend), 1);
    // Every third one has used the key for something else.
    let requests = (0..1000).map(|number| {
        let fingerprint = if number % 3 == 0 { OTHER } else { REQUEST };
        let engine = &engine;
        async move { execute_as(engine, fingerprint, &POLICY, never()).await }
    });
    let got = join_all(requests).await;
    assert_eq!(claims(&backend), 2);
    let mut bytes = Vec::new();
    for (number, got) in got.into_iter().enumerate() {
        match got {
            Got::Duplicate(Duplicate::Replay(payload)) if number % 3 != 0 => bytes.push(payload.as_ptr()),
            got => assert_eq!(got, Got::Duplicate(Duplicate::Mismatch)),
        }
    }
    bytes.dedup();
    assert!(bytes.len() <= 2, "one copy a look: {bytes:?}");
}

#[tokio::test(start_paused = true)]
async fn idem_21_waiters_share_their_looks() {
    let (backend, engine) = slow();
    let finish = Arc::new(Notify::new());
    let first = {
        let (engine, finish) = (engine.clone(), finish.clone());
        let handler = async move {
            finish.notified().await;
            stored("201")
        };
        tokio::spawn(async move { execute(&engine, handler).await })
    };
    sleep(Duration::from_millis(20)).await;
    let waiters: Vec<_> = (0..1000)
        .map(|_| {
            let engine = engine.clone();
            tokio::spawn(async move { execute_as(&engine, REQUEST, &WAITING, never()).await })
        })
        .collect();
    sleep(Duration::from_secs(5)).await;
    // The first one's; the waiters' first looks; those after they had begun to listen.
    let so_far = claims(&backend);
    assert!(so_far <= 6, "{so_far}");
    finish.notify_one();
    for waiter in waiters {
        assert_eq!(waiter.await.expect("no panic"), replay("201"));
    }
    first.await.expect("no panic");
    let woken = claims(&backend);
    assert!(woken <= 3, "{woken}");
}

#[tokio::test(start_paused = true)]
async fn idem_21_requests_that_are_given_up_hand_their_look_on() {
    let (backend, engine) = slow();
    assert_eq!(execute(&engine, async { stored("201") }).await, executed("201"));
    claims(&backend);
    let request = || {
        let engine = engine.clone();
        tokio::spawn(async move { execute(&engine, never()).await })
    };
    let hanging_up: Vec<_> = (0..1000).map(|_| request()).collect();
    let staying = request();
    sleep(Duration::from_millis(5)).await;
    for request in &hanging_up {
        request.abort();
    }
    assert_eq!(staying.await.expect("no panic"), replay("201"));
    let asked = claims(&backend);
    assert_eq!(asked, 2, "one was given up, and one stayed");
    sleep(Duration::from_secs(10)).await;
    let released = releases(&backend);
    assert!(released <= 2, "{released} for the one claim that may have been written");
}

#[tokio::test(start_paused = true)]
async fn idem_22_what_was_certainly_not_written_is_asked_once_and_not_released() {
    let (backend, engine) = slow();
    backend.fault.claims_refused.store(true, Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(
            execute(&engine, never()).await,
            Got::Failed(BackendErrorKind::Unavailable)
        );
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!((claims(&backend), releases(&backend)), (10, 0));
}

#[tokio::test(start_paused = true)]
async fn idem_22_a_failed_claim_is_asked_twice_and_released_twice_at_most() {
    let (backend, engine) = slow();
    backend.fault.claims_fail.store(true, Ordering::SeqCst);
    assert_eq!(
        execute(&engine, never()).await,
        Got::Failed(BackendErrorKind::Unavailable)
    );
    sleep(Duration::from_secs(10)).await;
    assert_eq!((claims(&backend), releases(&backend)), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn idem_22_claims_beyond_the_queues_places_are_left_to_their_lease() {
    let (backend, engine) = slow();
    backend.fault.claims_fail.store(true, Ordering::SeqCst);
    let keys: Vec<_> = (0..3000)
        .map(|number| RecordKey::new("o", &Scope::global(), &IdempotencyKey::of(&number)).expect("a valid key"))
        .collect();
    let failed = join_all(keys.iter().map(|key| engine.claim(key, REQUEST, &POLICY))).await;
    assert!(failed.iter().all(Result::is_err));
    engine.drain().await;
    let released = releases(&backend);
    assert!((1024..=2048).contains(&released), "{released}");
}

#[tokio::test(start_paused = true)]
async fn idem_22_a_waiter_looks_once_a_second_while_it_can_neither_look_nor_be_told() {
    for deaf in [false, true] {
        let (backend, engine) = slow();
        let holder = Claim::first(REQUEST, &POLICY.with_lease(Duration::from_mins(10)));
        Backend::claim(&backend, &key(), &holder).await.expect("memory");
        let waiting = {
            let engine = engine.clone();
            tokio::spawn(async move { execute_as(&engine, REQUEST, &WAITING, never()).await })
        };
        sleep(Duration::from_millis(500)).await;
        claims(&backend);
        backend.fault.claims_fail.store(true, Ordering::SeqCst);
        backend.fault.deaf.store(deaf, Ordering::SeqCst);
        // Being told again and again changes nothing.
        for _ in 0..300 {
            let end = Claim::first(REQUEST, &POLICY);
            let _ = Backend::release(&backend.inner, &key(), &end).await;
            sleep(Duration::from_millis(100)).await;
        }
        let looks = claims(&backend) / 2;
        assert!(looks <= 31, "{looks} looks in thirty seconds");
        backend.fault.claims_fail.store(false, Ordering::SeqCst);
        backend.fault.deaf.store(false, Ordering::SeqCst);
        let completion = Completion::Stored(Bytes::from_static(b"201"));
        let completed = Backend::complete(&backend.inner, &key(), &holder, &completion, POLICY.ttl()).await;
        assert_eq!(completed.expect("memory"), Fenced::Applied);
        assert_eq!(waiting.await.expect("no panic"), replay("201"));
        sleep(Duration::from_secs(10)).await;
        assert_eq!(
            releases(&backend),
            0,
            "it has kept its token, and another record was there"
        );
    }
}

/// A claim that was written, and whose answer was lost, is the waiter's own when it looks again.
#[tokio::test(start_paused = true)]
async fn a_waiter_finds_its_own_claim_again_and_runs_under_a_whole_lease() {
    let (backend, engine) = slow();
    let holder = Claim::first(REQUEST, &POLICY);
    Backend::claim(&backend, &key(), &holder).await.expect("memory");
    let waiting = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.claim(&key(), REQUEST, &WAITING).await })
    };
    sleep(Duration::from_millis(500)).await;
    backend.fault.hangs.store(true, Ordering::SeqCst);
    let _ = Backend::release(&backend.inner, &key(), &holder).await.expect("memory");
    // Its look has claimed the key, and the answer does not come. Nor does that of any other look, for most of a lease.
    sleep(Duration::from_secs(20)).await;
    backend.fault.hangs.store(false, Ordering::SeqCst);
    let Ok(ClaimResult::Run(run)) = waiting.await.expect("no panic") else {
        panic!("nobody else runs");
    };
    assert_eq!(run.claim().attempt, 1);
    let other = Claim::first(REQUEST, &POLICY);
    let held = Backend::claim(&backend.inner, &key(), &other).await.expect("memory");
    let Acquisition::Existing(Record::Claimed { claim, remaining }) = held else {
        panic!("{held:?}");
    };
    assert_eq!(claim.token, run.claim().token);
    assert!(remaining + Duration::from_secs(1) > LEASE, "{remaining:?}");
}

/// A claim whose answer was lost may still be on its way when its owner takes over another one.
#[tokio::test(start_paused = true)]
async fn no_claim_is_taken_over_under_a_token_of_a_call_that_was_not_answered() {
    let (backend, engine) = slow();
    let dead = Claim::first(REQUEST, &POLICY.with_lease(Duration::from_secs(5)));
    let _ = Backend::claim(&backend, &key(), &dead).await.expect("memory");
    let waiting = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.claim(&key(), REQUEST, &WAITING).await })
    };
    sleep(Duration::from_millis(500)).await;
    backend.fault.claims_fail.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(8)).await;
    backend.fault.claims_fail.store(false, Ordering::SeqCst);
    let Ok(ClaimResult::Run(run)) = waiting.await.expect("no panic") else {
        panic!("its owner is dead");
    };
    assert_eq!(run.claim().attempt, 2);
    let failed = backend.calls.failed.lock().expect("no panic").clone();
    assert!(!failed.is_empty() && !failed.contains(&run.claim().token), "{failed:?}");
}
