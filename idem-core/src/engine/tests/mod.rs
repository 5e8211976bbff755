//! The engine over the memory backend, on a paused clock, with faults put between the two.

mod blocking;
mod bounds;
mod faulty;
mod large;
mod outcomes;
mod sharing;
mod stalls;
mod steps;
mod waiting;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{Notify, oneshot};
use tokio::time::{advance, sleep};

use self::faulty::Faulty;
use super::{
    ClaimResult, Commit, CommitOutcome, Duplicate, Engine, HandlerResult, RecordOutcome, RunAnswer, RunOutcome,
    StreamedOutcome,
};
use crate::spec::history::{History, Recorder};
use crate::{
    Acquisition, AfterCrash, Backend, BackendError, BackendErrorKind, Claim, ClaimPolicy, Completion, Fenced,
    Fingerprint, IdempotencyKey, MemoryBackend, Record, RecordKey, Scope,
};

const LEASE: Duration = Duration::from_secs(30);
const POLICY: ClaimPolicy = ClaimPolicy::new(Duration::from_hours(1)).with_lease(LEASE);
const REQUEST: Fingerprint = Fingerprint::new(1, [1; 32]);

fn key() -> RecordKey {
    RecordKey::new("POST /orders", &Scope::of("acme"), &IdempotencyKey::of("k")).expect("a valid key")
}

fn stored(answer: &'static str) -> HandlerResult<&'static str> {
    HandlerResult::Whole {
        answer,
        outcome: RecordOutcome::complete(Completion::Stored(Bytes::from_static(answer.as_bytes()))),
    }
}

fn released(answer: &'static str) -> HandlerResult<&'static str> {
    HandlerResult::Whole {
        answer,
        outcome: RecordOutcome::Release,
    }
}

/// What a request gets, in one.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Executed(RunAnswer<&'static str>),
    Duplicate(Duplicate),
    Failed(BackendErrorKind),
    TooBusy,
}

async fn execute(engine: &Engine, handler: impl Future<Output = HandlerResult<&'static str>> + Send + 'static) -> Got {
    execute_as(engine, REQUEST, &POLICY, handler).await
}

async fn execute_as(
    engine: &Engine,
    request: Fingerprint,
    policy: &ClaimPolicy,
    handler: impl Future<Output = HandlerResult<&'static str>> + Send + 'static,
) -> Got {
    match engine.claim(&key(), request, policy).await {
        Ok(ClaimResult::Run(run)) => Got::Executed(run.run(handler, |_| {}).await),
        Ok(ClaimResult::Duplicate { duplicate, .. }) => Got::Duplicate(duplicate),
        Ok(ClaimResult::TooBusy) => Got::TooBusy,
        Err(error) => Got::Failed(error.kind()),
    }
}

const IN_FLIGHT: Got = Got::Duplicate(Duplicate::InFlight(Duration::from_secs(1)));

/// A handler that must not run.
fn never() -> impl Future<Output = HandlerResult<&'static str>> + Send + 'static {
    std::future::poll_fn(|_| unreachable!("the handler ran"))
}

fn answered(answer: &'static str, recorded: bool) -> Got {
    Got::Executed(RunAnswer::Answer { answer, recorded })
}

fn executed(answer: &'static str) -> Got {
    answered(answer, true)
}

fn replay(answer: &'static str) -> Got {
    Got::Duplicate(Duplicate::Replay(Bytes::from_static(answer.as_bytes())))
}

#[tokio::test]
async fn idem_1_and_2_one_of_many_runs_and_the_others_are_in_flight_then_replayed() {
    let engine = Engine::new(MemoryBackend::new());
    let runs = Arc::new(AtomicU32::new(0));
    let finish = Arc::new(Notify::new());
    let requests: Vec<_> = (0..100)
        .map(|_| {
            let (engine, runs, finish) = (engine.clone(), runs.clone(), finish.clone());
            tokio::spawn(async move {
                let handler = async move {
                    runs.fetch_add(1, Ordering::SeqCst);
                    finish.notified().await;
                    stored("201")
                };
                execute(&engine, handler).await
            })
        })
        .collect();
    // Every duplicate is refused while the first one waits for this permit.
    let mut replies = Vec::new();
    let mut requests: FuturesUnordered<_> = requests.into_iter().collect();
    while let Some(reply) = requests.next().await {
        replies.push(reply.expect("no panic"));
        if replies.len() == 99 {
            assert!(replies.iter().all(|reply| *reply == IN_FLIGHT), "{replies:?}");
            finish.notify_one();
        }
    }
    assert_eq!(replies.last(), Some(&executed("201")));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(execute(&engine, never()).await, replay("201"));
}

#[tokio::test(start_paused = true)]
async fn idem_7_a_handler_that_outlives_its_lease_three_times_over_keeps_its_claim() {
    let engine = Engine::new(MemoryBackend::new());
    let handler = async {
        sleep(LEASE * 3).await;
        stored("201")
    };
    let first = tokio::spawn({
        let engine = engine.clone();
        async move { execute(&engine, handler).await }
    });
    for _ in 0..8 {
        sleep(LEASE / 3 + Duration::from_secs(1)).await;
        assert_eq!(execute(&engine, never()).await, IN_FLIGHT);
    }
    assert_eq!(first.await.expect("no panic"), executed("201"));
    assert_eq!(execute(&engine, never()).await, replay("201"));
}

#[tokio::test(start_paused = true)]
async fn idem_5_a_handler_whose_client_left_runs_to_its_end_and_drain_waits_for_it() {
    let engine = Engine::new(MemoryBackend::new());
    let started = Arc::new(Notify::new());
    let handler = {
        let started = started.clone();
        async move {
            started.notify_one();
            sleep(Duration::from_mins(5)).await;
            stored("201")
        }
    };
    let request = tokio::spawn({
        let engine = engine.clone();
        async move { execute(&engine, handler).await }
    });
    started.notified().await;
    request.abort();
    assert!(request.await.is_err_and(|error| error.is_cancelled()));
    assert_eq!(execute(&engine, never()).await, IN_FLIGHT);

    engine.drain().await;

    assert_eq!(execute(&engine, never()).await, replay("201"));
}

#[tokio::test]
async fn idem_11_a_released_outcome_and_a_panic_let_the_next_request_run() {
    let engine = Engine::new(MemoryBackend::new());
    assert_eq!(execute(&engine, async { released("500") }).await, executed("500"));
    let panics = async { panic!("in the handler, on purpose") };
    assert_eq!(execute(&engine, panics).await, Got::Executed(RunAnswer::Panicked));
    assert_eq!(execute(&engine, async { stored("201") }).await, executed("201"));
    assert_eq!(execute(&engine, never()).await, replay("201"));
}

#[tokio::test]
async fn idem_12_a_streamed_answer_is_handed_out_before_its_outcome_is_known() {
    let engine = Engine::new(MemoryBackend::new());
    let ended = Arc::new(Notify::new());
    let handler = {
        let ended = ended.clone();
        async move {
            HandlerResult::Streaming {
                answer: "200",
                outcome: Box::pin(async move {
                    ended.notified().await;
                    StreamedOutcome {
                        outcome: RecordOutcome::complete(Completion::NotStored),
                        until_recorded: Box::new(ended),
                    }
                }),
            }
        }
    };
    assert_eq!(execute(&engine, handler).await, executed("200"));
    assert_eq!(execute(&engine, never()).await, IN_FLIGHT);
    ended.notify_one();
    engine.drain().await;
    assert_eq!(execute(&engine, never()).await, Got::Duplicate(Duplicate::NotStored));
}

#[tokio::test(start_paused = true)]
async fn idem_7_and_8_after_a_lost_lease_the_next_request_runs_and_the_first_changes_nothing() {
    let backend = Faulty::default();
    let engine = Engine::new(backend.clone());
    backend.fault.renewals_fail.store(true, Ordering::SeqCst);
    let stalled = tokio::spawn({
        let engine = engine.clone();
        let handler = async {
            sleep(LEASE * 2).await;
            stored("first")
        };
        async move { execute(&engine, handler).await }
    });
    sleep(LEASE + Duration::from_secs(1)).await;

    let second = execute(&engine, async { stored("second") }).await;

    assert_eq!(second, executed("second"));
    let superseded = stalled.await.expect("no panic");
    assert_eq!(superseded, answered("first", false), "its client gets its answer");
    assert_eq!(execute(&engine, never()).await, replay("second"));
}

#[tokio::test(start_paused = true)]
async fn idem_7_a_dead_owner_is_succeeded_by_attempt_two() {
    let backend = MemoryBackend::new();
    let dead = Claim::first(REQUEST, &POLICY);
    assert_eq!(
        backend.claim(&key(), &dead).await.expect("no I/O"),
        Acquisition::Acquired
    );
    let engine = Engine::new(backend.clone());
    assert_eq!(execute(&engine, never()).await, IN_FLIGHT);
    advance(LEASE).await;
    let handler = async move {
        let witness = Claim::first(REQUEST, &POLICY);
        match backend.claim(&key(), &witness).await {
            Ok(Acquisition::Existing(Record::Claimed { claim, .. })) => assert_eq!(claim.attempt, 2),
            other => panic!("{other:?}"),
        }
        stored("201")
    };
    assert_eq!(execute(&engine, handler).await, executed("201"));
}

#[tokio::test(start_paused = true)]
async fn idem_13_a_hanging_backend_is_an_error_within_the_deadline_and_the_handler_does_not_run() {
    let backend = Faulty::default();
    let engine = Engine::new(backend.clone());
    backend.fault.hangs.store(true, Ordering::SeqCst);
    let before = tokio::time::Instant::now();

    assert_eq!(execute(&engine, never()).await, Got::Failed(BackendErrorKind::Timeout));

    assert!(before.elapsed() <= Engine::DEFAULT_DEADLINE + Duration::from_millis(1));
    // The claim was written before the backend hung; given up, it is released behind the request's back.
    engine.drain().await;
    assert!(backend.inner.is_empty());
}

#[tokio::test]
async fn a_request_that_is_dropped_while_it_claims_leaves_no_claim_behind() {
    let backend = Faulty::default();
    let engine = Engine::new(backend.clone());
    backend.fault.hangs.store(true, Ordering::SeqCst);
    {
        let request = std::pin::pin!(execute(&engine, never()));
        assert!(request.now_or_never().is_none());
        assert_eq!(backend.inner.len(), 1);
    }
    backend.fault.hangs.store(false, Ordering::SeqCst);
    engine.drain().await;
    assert!(backend.inner.is_empty());
}

#[tokio::test(start_paused = true)]
async fn idem_13_an_outcome_that_cannot_be_recorded_is_answered_at_once_and_recorded_later() {
    let backend = Faulty::default();
    let engine = Engine::new(backend.clone());
    backend.fault.settling_fails.store(true, Ordering::SeqCst);

    let first = execute(&engine, async { stored("201") }).await;

    assert_eq!(first, answered("201", false));
    sleep(LEASE * 3).await;
    assert_eq!(execute(&engine, never()).await, IN_FLIGHT, "the claim is kept alive");
    backend.fault.settling_fails.store(false, Ordering::SeqCst);
    engine.drain().await;
    assert_eq!(execute(&engine, never()).await, replay("201"));
}

#[tokio::test]
async fn idem_3_another_request_under_the_key_is_refused_in_flight_and_after() {
    let engine = Engine::new(MemoryBackend::new());
    let other = Fingerprint::new(1, [2; 32]);
    let finish = Arc::new(Notify::new());
    let handler = {
        let finish = finish.clone();
        async move {
            finish.notified().await;
            stored("201")
        }
    };
    let mut first = std::pin::pin!(execute(&engine, handler));
    assert!((&mut first).now_or_never().is_none());
    let refused = execute_as(&engine, other, &POLICY, never()).await;
    assert_eq!(refused, Got::Duplicate(Duplicate::Mismatch));
    finish.notify_one();
    assert_eq!(first.await, executed("201"));
    let refused = execute_as(&engine, other, &POLICY, never()).await;
    assert_eq!(refused, Got::Duplicate(Duplicate::Mismatch));
}

#[tokio::test(start_paused = true)]
async fn idem_14_an_outcome_expires_ttl_after_completion_and_replays_do_not_prolong_it() {
    let engine = Engine::new(MemoryBackend::new());
    let slow = async {
        sleep(Duration::from_mins(10)).await;
        stored("201")
    };
    assert_eq!(execute(&engine, slow).await, executed("201"));
    sleep(POLICY.ttl().saturating_sub(Duration::from_secs(1))).await;
    assert_eq!(execute(&engine, never()).await, replay("201"));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(execute(&engine, async { stored("again") }).await, executed("again"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idem_7_a_handler_that_blocks_its_thread_keeps_its_claim() {
    let engine = Engine::new(MemoryBackend::new());
    let lease = Duration::from_millis(600);
    let policy = POLICY.with_lease(lease);
    let started = Arc::new(Notify::new());
    let first = tokio::spawn({
        let (engine, started) = (engine.clone(), started.clone());
        let blocking = async move {
            started.notify_one();
            std::thread::sleep(lease * 3);
            stored("201")
        };
        async move { execute_as(&engine, REQUEST, &policy, blocking).await }
    });
    started.notified().await;
    while !first.is_finished() {
        let duplicate = execute_as(&engine, REQUEST, &policy, async { stored("again") }).await;
        assert_ne!(duplicate, executed("again"));
        sleep(lease / 20).await;
    }
    assert_eq!(first.await.expect("no panic"), executed("201"));
}

/// What `Run::run` warns of, so that it stays true.
#[tokio::test(start_paused = true)]
async fn what_is_local_to_the_task_of_a_request_is_gone_from_its_handler_once_the_client_has_left() {
    tokio::task_local!(static LOCAL: ());
    let is_set = || LOCAL.try_with(|()| ()).is_ok();
    let engine = Engine::new(MemoryBackend::new());
    let (first, mut last) = oneshot::channel();
    let left = Arc::new(Notify::new());
    let handler = {
        let left = left.clone();
        async move {
            let before = is_set();
            left.notified().await;
            let _ = first.send((before, is_set()));
            stored("201")
        }
    };
    let request = LOCAL.scope((), execute(&engine, handler));
    let waited = tokio::time::timeout(Duration::from_secs(1), request).await;
    assert!(waited.is_err(), "it waits");
    left.notify_one();
    engine.drain().await;
    assert_eq!(last.try_recv(), Ok((true, false)));
}

#[test]
fn idem_7_a_claim_is_renewed_where_the_runtime_of_earlier_ones_has_ended() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().expect("a runtime")
    };
    let engine = Engine::new(MemoryBackend::new());
    let other = ClaimPolicy::new(Duration::from_hours(1)).with_lease(LEASE * 2);
    let earlier = RecordKey::new("POST /orders", &Scope::of("acme"), &IdempotencyKey::of("earlier"));
    let unfinished = runtime();
    unfinished.block_on(async {
        let claimed = engine.claim(&earlier.expect("a valid key"), REQUEST, &other).await;
        let Ok(ClaimResult::Run(run)) = claimed else {
            panic!("the key is free")
        };
        let slow = async {
            sleep(LEASE * 9).await;
            stored("never")
        };
        let running = tokio::spawn(run.run(slow, |_| {}));
        sleep(LEASE).await;
        assert!(!running.is_finished());
    });
    drop(unfinished);
    runtime().block_on(async {
        let slow = async {
            sleep(LEASE * 3).await;
            stored("201")
        };
        let first = tokio::spawn({
            let engine = engine.clone();
            async move { execute(&engine, slow).await }
        });
        sleep(LEASE * 2).await;
        assert_eq!(execute(&engine, never()).await, IN_FLIGHT);
        assert_eq!(first.await.expect("no panic"), executed("201"));
    });
}

/// The effects and their outcome are one: nothing is replayed that was not committed, and nothing blocks its retry.
#[tokio::test(start_paused = true)]
async fn a_joint_outcome_is_answered_if_it_was_committed_and_released_if_nobody_knows() {
    let engine = Engine::new(MemoryBackend::new());
    let joint = |outcome: CommitOutcome| async move {
        let commit = Commit::new(0, |_| async move { outcome });
        HandlerResult::Joint { answer: "mine", commit }
    };
    for (outcome, expected) in [
        (CommitOutcome::Unknown, RunAnswer::NotCommitted),
        (
            CommitOutcome::RolledBack { may_pass: true },
            RunAnswer::RolledBack { may_pass: true },
        ),
        (
            CommitOutcome::RolledBack { may_pass: false },
            RunAnswer::RolledBack { may_pass: false },
        ),
    ] {
        // The key is free as soon as the client is told.
        assert_eq!(execute(&engine, joint(outcome)).await, Got::Executed(expected));
    }
    let superseded = joint(CommitOutcome::Superseded);
    assert_eq!(execute(&engine, superseded).await, Got::Executed(RunAnswer::Superseded));
    assert_eq!(
        execute(&engine, never()).await,
        IN_FLIGHT,
        "the other one's claim is left alone"
    );
    let engine = Engine::new(MemoryBackend::new());
    let committed = joint(CommitOutcome::Committed);
    assert_eq!(execute(&engine, committed).await, executed("mine"));
}

/// What is known of a commit that is given up depends on whether it was sent.
#[tokio::test(start_paused = true)]
async fn a_commit_that_takes_too_long_is_unknown_only_once_it_was_sent() {
    let engine = Engine::new(MemoryBackend::new());
    for is_sent in [false, true] {
        let joint = async move {
            let commit = Commit::new(0, move |sent| async move {
                if is_sent {
                    sent.mark();
                }
                std::future::pending().await
            });
            HandlerResult::Joint { answer: "mine", commit }
        };
        let expected = if is_sent {
            RunAnswer::NotCommitted
        } else {
            RunAnswer::RolledBack { may_pass: true }
        };
        assert_eq!(execute(&engine, joint).await, Got::Executed(expected));
    }
}

#[test]
fn an_engine_says_which_backend_it_holds_also_behind_a_recorder() {
    let plain = Engine::new(MemoryBackend::new());
    let recorded = Engine::new(Recorder::new(MemoryBackend::new(), 1, History::new()));
    for engine in [plain, recorded] {
        assert!(engine.backend::<MemoryBackend>().is_some());
        assert!(engine.backend::<Faulty>().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_outside_of_the_handler_is_an_answer_and_an_end() {
    let backend = Faulty::default();
    backend.fault.completing_panics.store(true, Ordering::SeqCst);
    let engine = Engine::new(backend);
    let joint = async {
        let commit = Commit::new(0, |_| async { panic!("in the commit, on purpose") });
        HandlerResult::Joint { answer: "mine", commit }
    };
    for handler in [joint.boxed(), async { stored("mine") }.boxed()] {
        let Ok(ClaimResult::Run(run)) = engine.claim(&key(), REQUEST, &POLICY).await else {
            panic!("the claim before has lapsed");
        };
        let (end, told) = oneshot::channel();
        let executed = run
            .run(handler, |ended| end.send(ended).expect("it is waited for"))
            .await;
        assert_eq!(executed, RunAnswer::Panicked);
        assert_eq!(told.await, Ok(RunOutcome::Panicked));
        advance(LEASE).await;
    }
}
