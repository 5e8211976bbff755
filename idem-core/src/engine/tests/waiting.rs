//! Duplicates that wait, claims that are inherited, and outcomes that stay unknown.

use super::*;

const WAITING: ClaimPolicy = POLICY.with_wait(Duration::from_secs(10));

/// A first request whose handler waits for a permit, and its duplicates.
async fn first_and_waiters(
    engine: &Engine,
    outcome: fn() -> HandlerResult<&'static str>,
    waiters: usize,
) -> (
    tokio::task::JoinHandle<Got>,
    Vec<tokio::task::JoinHandle<Got>>,
    Arc<Notify>,
) {
    let (started, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (started, finish) = (started.clone(), finish.clone());
        async move {
            started.notify_one();
            finish.notified().await;
            outcome()
        }
    };
    let request = |handler: futures_util::future::BoxFuture<'static, HandlerResult<&'static str>>| {
        let engine = engine.clone();
        tokio::spawn(async move { execute_as(&engine, REQUEST, &WAITING, handler).await })
    };
    let first = request(handler.boxed());
    started.notified().await;
    let waiters = (0..waiters)
        .map(|_| request(async { stored("second") }.boxed()))
        .collect();
    (first, waiters, finish)
}

#[tokio::test(start_paused = true)]
async fn idem_4_a_duplicate_waits_no_longer_than_it_may_also_where_listening_hangs() {
    let backend = Faulty::default();
    backend.fault.listening_hangs.store(true, Ordering::SeqCst);
    let engine = Engine::new(backend.clone());
    let claim = Claim::first(REQUEST, &WAITING);
    let _ = Backend::claim(&backend, &key(), &claim).await.expect("memory");
    let short = POLICY.with_wait(Duration::from_millis(300));
    let before = tokio::time::Instant::now();
    assert_eq!(execute_as(&engine, REQUEST, &short, never()).await, IN_FLIGHT);
    assert_eq!(before.elapsed(), Duration::from_millis(300));
}

#[tokio::test(start_paused = true)]
async fn idem_4_duplicates_that_wait_get_the_first_ones_answer_as_soon_as_it_is_there() {
    for deaf in [false, true] {
        let backend = Faulty::default();
        backend.fault.deaf.store(deaf, Ordering::SeqCst);
        let engine = Engine::new(backend.clone());
        let (first, waiters, finish) = first_and_waiters(&engine, || stored("201"), 50).await;
        sleep(Duration::from_secs(5)).await;
        assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
        let before = tokio::time::Instant::now();
        finish.notify_one();
        assert_eq!(first.await.expect("no panic"), executed("201"));
        for waiter in waiters {
            assert_eq!(waiter.await.expect("no panic"), replay("201"));
        }
        // On the paused clock, time passes only while everybody sleeps.
        let late = if deaf { Duration::from_secs(1) } else { Duration::ZERO };
        assert!(before.elapsed() <= late, "{:?}", before.elapsed());
        assert_eq!(backend.inner.waiting(), 0, "nothing is left behind");
    }
}

#[tokio::test(start_paused = true)]
async fn idem_4_a_wait_ends_and_leaves_the_first_one_running() {
    let engine = Engine::new(MemoryBackend::new());
    let (first, waiters, finish) = first_and_waiters(&engine, || stored("201"), 3).await;
    for waiter in waiters {
        assert_eq!(waiter.await.expect("no panic"), IN_FLIGHT);
    }
    finish.notify_one();
    assert_eq!(first.await.expect("no panic"), executed("201"));
}

#[tokio::test(start_paused = true)]
async fn idem_4_of_those_who_waited_for_a_release_one_runs_and_the_others_get_its_answer() {
    let engine = Engine::new(MemoryBackend::new());
    let (first, waiters, finish) = first_and_waiters(&engine, || released("500"), 5).await;
    sleep(Duration::from_secs(1)).await;
    finish.notify_one();
    assert_eq!(first.await.expect("no panic"), executed("500"));
    let mut got = Vec::new();
    for waiter in waiters {
        got.push(waiter.await.expect("no panic"));
    }
    assert_eq!(
        got.iter().filter(|got| **got == executed("second")).count(),
        1,
        "{got:?}"
    );
    assert_eq!(got.iter().filter(|got| **got == replay("second")).count(), 4, "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn idem_7_a_waiter_whose_owner_died_inherits_the_claim() {
    let backend = MemoryBackend::new();
    let dead = Claim::first(REQUEST, &POLICY.with_lease(Duration::from_secs(3)));
    assert_eq!(
        backend.claim(&key(), &dead).await.expect("no I/O"),
        Acquisition::Acquired
    );
    let engine = Engine::new(backend);
    let before = tokio::time::Instant::now();
    let Ok(ClaimResult::Run(run)) = engine.claim(&key(), REQUEST, &WAITING).await else {
        panic!("nobody else runs");
    };
    assert_eq!(run.claim().attempt, 2);
    assert_eq!(
        before.elapsed().as_secs(),
        3,
        "when the lease has lapsed, and not later"
    );
    assert_eq!(
        run.run(async { stored("201") }, |_| {}).await,
        RunAnswer::Answer {
            answer: "201",
            recorded: true
        }
    );
}

#[tokio::test(start_paused = true)]
async fn idem_7_where_a_crash_refuses_nothing_runs_again_until_ttl() {
    let refusing = WAITING.with_after_crash(AfterCrash::Refuse);
    let unknown = || Got::Duplicate(Duplicate::OutcomeUnknown);
    let engine = Engine::new(MemoryBackend::new());
    let panics = async { panic!("in the handler, on purpose") };
    assert_eq!(
        execute_as(&engine, REQUEST, &refusing, panics).await,
        Got::Executed(RunAnswer::Panicked)
    );
    assert_eq!(
        execute(&engine, never()).await,
        unknown(),
        "whatever the retry's own policy says"
    );
    assert_eq!(execute_as(&engine, REQUEST, &refusing, never()).await, unknown());
    sleep(POLICY.ttl().saturating_sub(Duration::from_secs(1))).await;
    assert_eq!(execute_as(&engine, REQUEST, &refusing, never()).await, unknown());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        execute_as(&engine, REQUEST, &refusing, async { stored("201") }).await,
        executed("201")
    );
}

#[tokio::test(start_paused = true)]
async fn idem_4_a_backend_that_fails_meanwhile_does_not_end_the_wait() {
    let backend = Faulty::default();
    let engine = Engine::new(backend.clone());
    let (first, waiters, finish) = first_and_waiters(&engine, || stored("201"), 3).await;
    sleep(Duration::from_secs(1)).await;
    backend.fault.hangs.store(true, Ordering::SeqCst);
    finish.notify_one();
    sleep(Duration::from_secs(4)).await;
    assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
    backend.fault.hangs.store(false, Ordering::SeqCst);
    for waiter in waiters {
        assert_eq!(waiter.await.expect("no panic"), replay("201"));
    }
    assert_eq!(first.await.expect("no panic"), answered("201", false));
}
