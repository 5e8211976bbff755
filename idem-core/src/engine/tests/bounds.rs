//! Bounds on a request's attempts, on how long it runs, and on how many run at once.

use tokio::time::Instant;

use super::*;
use crate::{Owner, Record};

/// Claims the key as a process that dies at once, and returns its claim.
async fn dies(backend: &MemoryBackend, engine: &Engine, policy: &ClaimPolicy) -> Option<Claim> {
    match engine.claim(&key(), REQUEST, policy).await.expect("memory") {
        ClaimResult::Run(mut run) => {
            // As of a process that is gone: nobody renews, and nobody releases.
            run.pending.start();
            Some(run.claim().clone())
        }
        ClaimResult::Duplicate { duplicate, .. } => {
            assert_eq!(duplicate, Duplicate::OutcomeUnknown);
            let record = Backend::read(backend, &key()).await.expect("memory");
            assert!(
                matches!(record, Some(Record::Claimed { .. })),
                "an unknown outcome changes nothing"
            );
            None
        }
        ClaimResult::TooBusy => unreachable!("the engine has no limit"),
    }
}

fn engine_and_backend() -> (MemoryBackend, Engine) {
    let backend = MemoryBackend::new();
    (backend.clone(), Engine::new(backend).with_owner(Owner::new("web:1")))
}

#[tokio::test(start_paused = true)]
async fn idem_7_after_so_many_attempts_the_outcome_is_unknown() {
    let (backend, engine) = engine_and_backend();
    let policy = POLICY.with_max_attempts(3);
    for attempt in 1..=3 {
        let claim = dies(&backend, &engine, &policy).await.expect("it may run");
        assert_eq!(claim.attempt, attempt);
        sleep(LEASE).await;
    }
    assert_eq!(dies(&backend, &engine, &policy).await, None);
    assert!(
        dies(&backend, &engine, &POLICY).await.is_some(),
        "the bound is the retry's own"
    );
}

#[tokio::test(start_paused = true)]
async fn idem_7_a_request_that_began_too_long_ago_is_not_run_again() {
    let (backend, engine) = engine_and_backend();
    let policy = POLICY.with_rerun_within(LEASE * 5 / 2);
    let first = dies(&backend, &engine, &policy).await.expect("it is the first one");
    sleep(LEASE).await;
    let second = dies(&backend, &engine, &policy).await.expect("it began one lease ago");
    assert_eq!(second.attempt, 2);
    assert_eq!(second.began_at, first.began_at, "the time is that of the first attempt");
    assert_eq!(second.owner, Owner::new("web:1"));
    sleep(LEASE).await;
    assert!(
        dies(&backend, &engine, &policy).await.is_some(),
        "it began two leases ago"
    );
    sleep(LEASE).await;
    assert_eq!(
        dies(&backend, &engine, &policy).await,
        None,
        "it began three leases ago"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_waited_began_when_it_was_claimed() {
    let (_, engine) = engine_and_backend();
    let waiting = POLICY.with_wait(Duration::from_hours(1));
    let first = Engine::claim(&engine, &key(), REQUEST, &POLICY).await;
    let Ok(ClaimResult::Run(first)) = first else {
        panic!("the key is free")
    };
    let began = first.claim().began_at;
    let claiming = engine.claim(&key(), REQUEST, &waiting);
    let running = first.run(
        async {
            sleep(Duration::from_secs(100)).await;
            HandlerResult::Whole {
                answer: "503",
                outcome: RecordOutcome::Release,
            }
        },
        |_| {},
    );
    let (second, _) = tokio::join!(claiming, running);
    let Ok(ClaimResult::Run(second)) = second else {
        panic!("the key was released")
    };
    let later = second.claim().began_at.duration_since(began).expect("time goes on");
    assert!(later >= Duration::from_secs(99), "{later:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_runs_too_long_loses_its_claim_and_holds_up_no_drain() {
    let (backend, engine) = engine_and_backend();
    let policy = POLICY.with_max_run(LEASE * 2);
    let (hung, asked) = (engine.clone(), Instant::now());
    let client =
        tokio::spawn(async move { execute_as(&hung, REQUEST, &policy, futures_util::future::pending()).await });
    sleep(LEASE * 2).await;
    assert_eq!(execute_as(&engine, REQUEST, &policy, never()).await, IN_FLIGHT);
    engine.drain().await;
    let held = asked.elapsed();
    assert!(held > LEASE * 2 && held <= LEASE * 3, "{held:?}");
    let record = Backend::read(&backend, &key()).await.expect("memory");
    assert!(matches!(record, Some(Record::Claimed { remaining, .. }) if remaining.is_zero()));
    assert_eq!(
        execute_as(&engine, REQUEST, &policy, async { stored("201") }).await,
        executed("201"),
        "the next attempt runs"
    );
    assert!(!client.is_finished(), "the handler was not dropped");
    client.abort();
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_ends_after_its_bound_is_still_recorded_where_nothing_has_taken_its_place() {
    let (_, engine) = engine_and_backend();
    let policy = POLICY.with_max_run(LEASE);
    let slow = async {
        sleep(LEASE * 4).await;
        stored("201")
    };
    assert_eq!(execute_as(&engine, REQUEST, &policy, slow).await, executed("201"));
    assert_eq!(execute_as(&engine, REQUEST, &policy, never()).await, replay("201"));
}

#[tokio::test(start_paused = true)]
async fn idem_13_a_handler_that_ends_after_its_bound_keeps_its_claim_while_its_outcome_cannot_be_recorded() {
    let backend = Faulty::default();
    let engine = Engine::new(backend.clone());
    backend.fault.settling_fails.store(true, Ordering::SeqCst);
    let policy = POLICY.with_max_run(LEASE * 2);
    let slow = async {
        sleep(LEASE * 2 + LEASE / 6).await;
        stored("201")
    };
    assert_eq!(
        execute_as(&engine, REQUEST, &policy, slow).await,
        answered("201", false)
    );
    sleep(LEASE * 2).await;
    assert_eq!(execute_as(&engine, REQUEST, &policy, never()).await, IN_FLIGHT);
    assert!(
        engine.drain().now_or_never().is_none(),
        "the outcome is still to be recorded"
    );
    backend.fault.settling_fails.store(false, Ordering::SeqCst);
    engine.drain().await;
    assert_eq!(execute_as(&engine, REQUEST, &policy, never()).await, replay("201"));
}

fn other_key(number: u32) -> RecordKey {
    RecordKey::new("other", &Scope::global(), &IdempotencyKey::of(&number)).expect("a valid key")
}

/// A handler on `key` that runs until it is told to end.
fn held_open(engine: &Engine, key: RecordKey) -> (tokio::task::JoinHandle<Got>, Arc<Notify>) {
    let (engine, end) = (engine.clone(), Arc::new(Notify::new()));
    let ended = end.clone();
    let running = tokio::spawn(async move {
        match engine.claim(&key, REQUEST, &POLICY).await {
            Ok(ClaimResult::Run(run)) => {
                let handler = async move {
                    ended.notified().await;
                    stored("201")
                };
                Got::Executed(run.run(handler, |_| {}).await)
            }
            Ok(ClaimResult::Duplicate { duplicate, .. }) => Got::Duplicate(duplicate),
            Ok(ClaimResult::TooBusy) => Got::TooBusy,
            Err(error) => Got::Failed(error.kind()),
        }
    });
    (running, end)
}

#[tokio::test(start_paused = true)]
async fn no_more_handlers_run_than_are_allowed_and_replays_need_no_permit() {
    let backend = MemoryBackend::new();
    let engine = Engine::new(backend.clone()).with_max_in_flight(2);
    assert_eq!(execute(&engine, async { stored("201") }).await, executed("201"));
    let (one, end_one) = held_open(&engine, other_key(1));
    let (two, end_two) = held_open(&engine, other_key(2));
    sleep(Duration::from_millis(1)).await;

    let before = backend.len();
    let (refused, _) = held_open(&engine, other_key(3));
    assert_eq!(refused.await.expect("no panic"), Got::TooBusy);
    assert_eq!(backend.len(), before, "a refused request claims nothing");
    assert_eq!(execute(&engine, never()).await, replay("201"));
    let (duplicate, _) = held_open(&engine, other_key(1));
    assert_eq!(duplicate.await.expect("no panic"), IN_FLIGHT);

    // The permit goes with the handler, and not with its client.
    one.abort();
    assert!(one.await.is_err());
    let (refused, _) = held_open(&engine, other_key(3));
    assert_eq!(refused.await.expect("no panic"), Got::TooBusy);

    end_one.notify_one();
    end_two.notify_one();
    assert_eq!(two.await.expect("no panic"), executed("201"));
    sleep(Duration::from_millis(1)).await;
    let (three, end_three) = held_open(&engine, other_key(3));
    end_three.notify_one();
    assert_eq!(three.await.expect("no panic"), executed("201"));
}

#[tokio::test(start_paused = true)]
async fn a_lapsed_claim_is_not_taken_over_without_a_permit() {
    let backend = MemoryBackend::new();
    let engine = Engine::new(backend.clone()).with_max_in_flight(1);
    let dead = Claim::first(REQUEST, &POLICY);
    assert_eq!(
        Backend::claim(&backend, &key(), &dead).await.expect("memory"),
        Acquisition::Acquired
    );
    sleep(LEASE).await;
    let (running, end) = held_open(&engine, other_key(1));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(execute(&engine, never()).await, Got::TooBusy);
    end.notify_one();
    assert_eq!(running.await.expect("no panic"), executed("201"));
    assert_eq!(execute(&engine, async { stored("200") }).await, executed("200"));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_still_being_recorded_needs_no_permit() {
    let backend = Faulty::default();
    let engine = Engine::new(backend.clone()).with_max_in_flight(1);
    backend.fault.settling_fails.store(true, Ordering::SeqCst);
    assert_eq!(execute(&engine, async { stored("201") }).await, answered("201", false));
    let (second, end) = held_open(&engine, other_key(1));
    end.notify_one();
    assert_eq!(second.await.expect("no panic"), answered("201", false));
    backend.fault.settling_fails.store(false, Ordering::SeqCst);
    engine.drain().await;
}
