//! Handlers that block their thread, on a clock that runs: it is threads that stand still, and leases must not lapse meanwhile.

use std::future::pending;
use std::thread;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::sleep;

use super::{POLICY, REQUEST, execute_as, key, stored};
use crate::engine::{ClaimResult, Engine, HandlerResult};
use crate::{Acquisition, Backend as _, Claim, IdempotencyKey, MemoryBackend, Record, RecordKey, Scope};

/// Long enough for a machine that stands still for a second.
const LEASE: Duration = Duration::from_millis(1500);

/// Until everything else is parked, so that one task alone is woken.
const PARKED: Duration = Duration::from_millis(50);

fn block() -> HandlerResult<&'static str> {
    thread::sleep(LEASE * 4);
    stored("201")
}

/// The key is still claimed after three leases, by one that has not lapsed.
fn assert_is_held(backend: &MemoryBackend) {
    // This thread is none of the runtime's workers.
    thread::sleep(LEASE * 3);
    let witness = Claim::first(REQUEST, &POLICY);
    let claiming = backend.claim(&key(), &witness).now_or_never();
    let found = claiming.expect("no I/O").expect("no I/O");
    let Acquisition::Existing(Record::Claimed { remaining, .. }) = found else {
        panic!("{found:?}")
    };
    assert!(!remaining.is_zero(), "the lease has lapsed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idem_7_a_handler_that_blocks_the_thread_that_would_fire_timers_keeps_its_claim() {
    let backend = MemoryBackend::new();
    let engine = Engine::new(backend.clone());
    let policy = POLICY.with_lease(LEASE);
    let _running = tokio::spawn(async move {
        let other = RecordKey::new("POST /orders", &Scope::of("acme"), &IdempotencyKey::of("earlier"));
        let Ok(ClaimResult::Run(run)) = engine.claim(&other.expect("a key"), REQUEST, &policy).await else {
            panic!("free")
        };
        let _ = run.run(async { stored("earlier") }, |_| {}).await;
        sleep(PARKED).await;
        execute_as(&engine, REQUEST, &policy, async { block() }).await
    });
    assert_is_held(&backend);
}

#[test]
fn idem_22_a_runtime_that_nobody_polls_is_prodded_with_one_task() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let engine = Engine::new(MemoryBackend::new());
    let policy = POLICY.with_lease(Duration::from_millis(300));
    runtime.block_on(async {
        tokio::spawn(async move { execute_as(&engine, REQUEST, &policy, pending()).await });
        // It runs, and the task that renews its claim waits.
        sleep(PARKED).await;
    });
    let tasks = || runtime.metrics().num_alive_tasks();
    let before = tasks();
    thread::sleep(Duration::from_secs(1));
    assert!(tasks() <= before + 1, "{before} tasks, and then {}", tasks());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idem_7_a_handler_that_blocks_after_having_waited_keeps_its_claim() {
    let backend = MemoryBackend::new();
    let engine = Engine::new(backend.clone());
    let blocking = async {
        sleep(PARKED).await;
        block()
    };
    let _running = tokio::spawn(async move { execute_as(&engine, REQUEST, &POLICY.with_lease(LEASE), blocking).await });
    assert_is_held(&backend);
}
