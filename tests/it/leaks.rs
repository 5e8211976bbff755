//! What is left after a hundred thousand keys: nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use idem_axum::RedisBackend;
use idem_core::{
    ClaimPolicy, ClaimResult, Completion, Duplicate, Engine, Fingerprint, HandlerResult, IdempotencyKey, MemoryBackend,
    RecordKey, RecordOutcome, Run, RunAnswer, Scope,
};
use idem_tests::{PATIENCE, RedisServer};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

const KEYS: usize = 100_000;
/// How many handlers run at a time.
const BATCH: usize = 1_000;
/// Of so many handlers, one has somebody who waits for it.
const SHARE: usize = 10;

const POLICY: ClaimPolicy = ClaimPolicy::new(Duration::from_hours(1)).with_wait(Duration::from_hours(1));

fn key(number: usize) -> RecordKey {
    RecordKey::new("o", &Scope::global(), &IdempotencyKey::of(&number)).expect("a valid key")
}

/// The right to run under a key that nobody has used.
async fn claim(engine: &Engine, number: usize) -> Run {
    match engine.claim(&key(number), Fingerprint::NONE, &POLICY).await {
        Ok(ClaimResult::Run(run)) => run,
        other => panic!("nobody else has the key: {other:?}"),
    }
}

/// Runs a batch of handlers, lets others wait for some of them, and ends them all.
async fn use_keys(engine: &Engine, first: usize, waiting: &impl AsyncFn() -> usize) {
    let gate = watch::Sender::new(false);
    let begun = Arc::new(AtomicUsize::new(0));
    let mut runs = JoinSet::new();
    for number in first..first + BATCH {
        let (engine, begun, mut gate) = (engine.clone(), begun.clone(), gate.subscribe());
        runs.spawn(async move {
            let run = claim(&engine, number).await;
            let handler = async move {
                begun.fetch_add(1, Ordering::SeqCst);
                gate.wait_for(|open| *open).await.expect("the sender lives");
                let outcome = RecordOutcome::complete(Completion::Stored(Bytes::from_static(b"the answer")));
                HandlerResult::Whole { answer: (), outcome }
            };
            run.run(handler, |_| {}).await
        });
    }
    until(async || begun.load(Ordering::SeqCst) == BATCH).await;
    let mut waiters = JoinSet::new();
    for number in (first..first + BATCH).step_by(SHARE) {
        let engine = engine.clone();
        waiters.spawn(async move { engine.claim(&key(number), Fingerprint::NONE, &POLICY).await });
    }
    until(async || waiting().await == BATCH / SHARE).await;
    gate.send_replace(true);
    for executed in runs.join_all().await {
        let recorded = true;
        assert_eq!(executed, RunAnswer::Answer { answer: (), recorded });
    }
    for waited in waiters.join_all().await {
        let is_replay = matches!(
            waited,
            Ok(ClaimResult::Duplicate {
                duplicate: Duplicate::Replay(_),
                waited: true
            })
        );
        assert!(is_replay, "{waited:?}");
    }
}

async fn until(condition: impl AsyncFn() -> bool) {
    let since = Instant::now();
    while !condition().await {
        assert!(since.elapsed() < PATIENCE, "it never comes to that");
        tokio::task::yield_now().await;
    }
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn after_a_hundred_thousand_keys_the_memory_backend_is_empty() {
    let backend = MemoryBackend::new();
    let engine = Engine::new(backend.clone());
    let before = tasks();
    for first in (0..KEYS).step_by(BATCH) {
        use_keys(&engine, first, &async || backend.waiting()).await;
    }
    assert_eq!(backend.waiting(), 0);
    engine.drain().await;
    assert_eq!(tasks(), before + 1, "but for the one that renews leases");
    // What has expired goes as others come, which leave nothing themselves: a lease later at most.
    tokio::time::advance(POLICY.ttl() + POLICY.lease()).await;
    for number in KEYS..KEYS + KEYS / 2 {
        let outcome = RecordOutcome::Release;
        let run = claim(&engine, number).await;
        run.run(async { HandlerResult::Whole { answer: (), outcome } }, |_| {})
            .await;
    }
    assert_eq!(backend.len(), 0);
    drop(engine);
    until(async || tasks() == before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_hundred_thousand_keys_nobody_listens_to_redis_and_no_task_is_left() {
    let test = async {
        let server = RedisServer::start().await;
        let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
        // Long enough for a busy machine: nothing here is about deadlines.
        let engine = Engine::new(backend).with_deadline(PATIENCE);
        let waiting = async || server.channels().await;
        // Opens what stays open: the connections, and the task that listens.
        use_keys(&engine, 0, &waiting).await;
        until(async || server.channels().await == 0).await;
        engine.drain().await;
        let before = tasks();
        for first in (BATCH..=KEYS).step_by(BATCH) {
            use_keys(&engine, first, &waiting).await;
        }
        until(async || server.channels().await == 0).await;
        engine.drain().await;
        // Connections that only asked how many channels there are take a moment to go.
        until(async || tasks() <= before).await;
    };
    // It is the longest of all tests, also on a machine that is not busy.
    tokio::time::timeout(PATIENCE * 5, test).await.expect("the test hangs");
}
