//! Tasks: the contract of handlers, for messages, on every backend.

mod attribute;
mod batches;
mod failures;
mod histories;
mod transactions;
mod verdicts;

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use idem_axum::RedisBackend;
use idem_core::{ClaimPolicy, ClaimResult, Engine, Fingerprint, MemoryBackend, RecordKey};
use idem_task::{
    AfterCrash, Execution, Refused, RefusedKind, Scope, StepErrorKind, Task, TaskError, TaskExt as _, Verdict, verdict,
};
use idem_tests::{PostgresServer, RedisCluster, RedisServer, SqliteFile, in_time};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// A call about a claim may take a third of it.
const LEASE: Duration = Duration::from_secs(2);
const DAY: Duration = Duration::from_hours(24);

/// The engines of two consumers over one store, which lives as long.
struct Stage {
    engines: [Engine; 2],
    _store: Box<dyn Send>,
}

impl Stage {
    fn new(engines: [Engine; 2], store: impl Send + 'static) -> Self {
        Self {
            engines,
            _store: Box::new(store),
        }
    }

    async fn memory() -> Self {
        std::future::ready(()).await;
        let backend = MemoryBackend::new();
        Self::new([Engine::new(backend.clone()), Engine::new(backend)], ())
    }

    async fn redis() -> Self {
        let server = RedisServer::start().await;
        let engine = async || Engine::new(RedisBackend::connect(&server.url()).await.expect("it answers"));
        Self::new([engine().await, engine().await], server)
    }

    async fn cluster() -> Self {
        let cluster = RedisCluster::start().await;
        let engine = async || Engine::new(RedisBackend::connect(&cluster.url()).await.expect("it answers"));
        Self::new([engine().await, engine().await], cluster)
    }

    async fn postgres() -> Self {
        let server = PostgresServer::shared().await;
        let (backend, _schema) = server.backend().await;
        Self::new([Engine::new(backend.clone()), Engine::new(backend)], server)
    }

    async fn sqlite() -> Self {
        let file = SqliteFile::create().await;
        let engines = [file.backend().await, file.backend().await].map(Engine::new);
        Self::new(engines, file)
    }

    /// The task of a message, by the first consumer.
    fn task(&self, key: &str) -> Task<Scope, idem_task::IdempotencyKey, Duration> {
        self.task_of(0, key)
    }

    fn task_of(&self, consumer: usize, key: &str) -> Task<Scope, idem_task::IdempotencyKey, Duration> {
        self.engines[consumer]
            .task("ship")
            .scope("orders")
            .key(key)
            .ttl(DAY)
            .lease(LEASE)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Parcel {
    number: u32,
    by: u32,
}

/// Why an order is not shipped.
#[derive(Debug)]
enum ShipError {
    Refused(Refused),
    /// Worth another try.
    Carrier,
    NoSuchAddress,
    /// Nobody wants it any more.
    Cancelled,
}

impl ShipError {
    fn kind(&self) -> Option<RefusedKind> {
        match self {
            Self::Refused(refused) => Some(refused.kind()),
            _ => None,
        }
    }
}

impl fmt::Display for ShipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refused) => refused.fmt(f),
            other => fmt::Debug::fmt(other, f),
        }
    }
}

impl From<Refused> for ShipError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl TaskError for ShipError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Refused(refused) => refused.verdict(),
            Self::Carrier => Verdict::REDELIVER,
            Self::NoSuchAddress => Verdict::SetAside,
            Self::Cancelled => Verdict::Acknowledge,
        }
    }
}

/// Counts shipments.
#[derive(Clone, Default)]
struct Carrier(Arc<AtomicU32>);

impl Carrier {
    fn shipped(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    async fn ship(self, execution: Execution) -> Result<Parcel, ShipError> {
        let number = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        let by = execution.attempt();
        std::future::ready(Ok(Parcel { number, by })).await
    }
}

async fn a_message_that_is_delivered_again_gets_the_first_result(stage: Stage) {
    let carrier = Carrier::default();
    for consumer in [0, 1, 0] {
        let shipping = carrier.clone();
        let parcel = stage
            .task_of(consumer, "o-1")
            .run(|execution| shipping.ship(execution))
            .await;
        assert_eq!(verdict(&parcel), Verdict::Acknowledge);
        assert_eq!(parcel.expect("shipped"), Parcel { number: 1, by: 1 });
    }
    let shipping = carrier.clone();
    let other = stage.task("o-2").run(|execution| shipping.ship(execution)).await;
    assert_eq!(other.expect("shipped"), Parcel { number: 2, by: 1 });
}

async fn of_many_deliveries_at_once_one_runs(stage: Stage) {
    let carrier = Carrier::default();
    let deliveries = (0..16).map(|delivery| {
        let (shipping, task) = (carrier.clone(), stage.task_of(delivery % 2, "o-1"));
        task.wait(Duration::from_secs(10))
            .run(|execution| shipping.ship(execution))
    });
    for parcel in futures_util::future::join_all(deliveries).await {
        assert_eq!(parcel.expect("shipped"), Parcel { number: 1, by: 1 });
    }
    assert_eq!(carrier.shipped(), 1);
}

async fn another_delivery_while_the_first_one_runs_is_redelivered(stage: Stage) {
    let (carrier, gate, begun) = (Carrier::default(), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (shipping, opened, is_begun) = (carrier.clone(), gate.clone(), begun.clone());
    let first = tokio::spawn(stage.task("o-1").run(move |execution| async move {
        is_begun.notify_one();
        opened.notified().await;
        shipping.ship(execution).await
    }));
    begun.notified().await;
    let second = stage
        .task_of(1, "o-1")
        .run(|_| pending::<Result<Parcel, ShipError>>())
        .await;
    let refused = second.expect_err("it runs");
    assert!(matches!(refused.kind(), Some(RefusedKind::InFlight(_))), "{refused:?}");
    assert!(matches!(refused.verdict(), Verdict::Redeliver(after) if !after.is_zero()));
    gate.notify_one();
    assert_eq!(
        first.await.expect("no panic").expect("shipped"),
        Parcel { number: 1, by: 1 }
    );
}

async fn an_error_is_tried_again_unless_it_is_final(stage: Stage) {
    let runs = Arc::new(AtomicU32::new(0));
    let run = async |key: &str, error: fn() -> ShipError| {
        let counted = runs.clone();
        let task = stage.task(key).run(move |_| async move {
            counted.fetch_add(1, Ordering::SeqCst);
            Err::<Parcel, _>(error())
        });
        task.await.expect_err("it fails")
    };
    for _ in 0..2 {
        assert!(matches!(
            run("carrier", || ShipError::Carrier).await,
            ShipError::Carrier
        ));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    for (key, error, expected) in [
        (
            "address",
            (|| ShipError::NoSuchAddress) as fn() -> ShipError,
            Verdict::SetAside,
        ),
        ("cancelled", || ShipError::Cancelled, Verdict::Acknowledge),
    ] {
        runs.store(0, Ordering::SeqCst);
        assert_eq!(run(key, error).await.verdict(), expected);
        let again = run(key, error).await;
        assert_eq!(again.kind(), Some(RefusedKind::Failed(expected)), "{again:?}");
        assert_eq!(again.verdict(), expected);
        assert_eq!(runs.load(Ordering::SeqCst), 1, "{key}");
    }
}

async fn another_message_under_a_key_is_set_aside(stage: Stage) {
    let carrier = Carrier::default();
    let ship = async |item: &str| {
        let shipping = carrier.clone();
        let task = stage.task("o-1").compare(&item);
        task.run(|execution| shipping.ship(execution)).await
    };
    assert_eq!(ship("a pump").await.expect("shipped").number, 1);
    assert_eq!(ship("a pump").await.expect("shipped").number, 1);
    let other = ship("a hose").await.expect_err("another message");
    assert_eq!(other.kind(), Some(RefusedKind::KeyReused));
    assert_eq!(other.verdict(), Verdict::SetAside);
}

async fn a_scope_a_name_and_a_key_keep_messages_apart(stage: Stage) {
    let carrier = Carrier::default();
    let engine = &stage.engines[0];
    let tasks = [
        engine.task("ship").scope("a").key("1"),
        engine.task("ship").scope("b").key("1"),
        engine.task("ship").global().key("1"),
        engine.task("ship").scope("a").key("2"),
        engine.task("bill").scope("a").key("1"),
    ];
    for task in tasks {
        let shipping = carrier.clone();
        let parcel = task.ttl(DAY).run(|execution| shipping.ship(execution)).await;
        assert_eq!(parcel.expect("shipped").by, 1);
    }
    assert_eq!(carrier.shipped(), 5);
    for (scope, key) in [("", "1"), ("a", ""), ("a", &*"x".repeat(2000))] {
        let task = engine.task("ship").scope(scope).key(key).ttl(DAY);
        let refused = task
            .run(|_| pending::<Result<(), Refused>>())
            .await
            .expect_err("no key");
        assert_eq!(
            (refused.kind(), refused.verdict()),
            (RefusedKind::KeyInvalid, Verdict::SetAside)
        );
    }
}

async fn a_task_goes_on_when_its_caller_is_gone(stage: Stage) {
    let (carrier, begun, gate) = (Carrier::default(), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (shipping, is_begun, opened) = (carrier.clone(), begun.clone(), gate.clone());
    let mut first = Box::pin(stage.task("o-1").run(move |execution| async move {
        is_begun.notify_one();
        opened.notified().await;
        shipping.ship(execution).await
    }));
    tokio::select! {
        _ = &mut first => unreachable!("the gate is closed"),
        () = begun.notified() => {}
    }
    drop(first);
    gate.notify_one();
    let shipping = carrier.clone();
    let again = stage
        .task("o-1")
        .wait(Duration::from_secs(10))
        .run(|execution| shipping.ship(execution));
    assert_eq!(again.await.expect("shipped"), Parcel { number: 1, by: 1 });
}

/// As of a process that is killed, a claim that nobody renews.
async fn after_a_crash_a_task_runs_again_or_is_unknown(stage: Stage) {
    for (after_crash, most) in [(AfterCrash::Rerun, 9), (AfterCrash::Refuse, 9), (AfterCrash::Rerun, 1)] {
        let key = format!("{after_crash:?}-{most}");
        let record = RecordKey::of("task ship", &Scope::of("orders"), &key).expect("a valid key");
        let policy = ClaimPolicy::new(DAY).with_lease(LEASE);
        match stage.engines[0].claim(&record, Fingerprint::NONE, &policy).await {
            Ok(ClaimResult::Run(run)) => std::mem::forget(run),
            other => panic!("{other:?}"),
        }
        let carrier = Carrier::default();
        let task = stage.task_of(1, &key).after_crash(after_crash).max_attempts(most);
        let result = task
            .wait(Duration::from_secs(10))
            .run(|execution| carrier.ship(execution))
            .await;
        if (after_crash, most) == (AfterCrash::Rerun, 9) {
            assert_eq!(result.expect("shipped"), Parcel { number: 1, by: 2 });
            continue;
        }
        let unknown = result.expect_err("not again");
        assert_eq!(unknown.kind(), Some(RefusedKind::OutcomeUnknown));
        assert_eq!(unknown.verdict(), Verdict::SetAside);
    }
}

async fn a_result_that_is_too_large_is_not_asked_for_again(stage: Stage) {
    let runs = Arc::new(AtomicU32::new(0));
    let run = async || {
        let counted = runs.clone();
        let task = stage.task("o-1").max_result(8);
        task.run(move |_| async move {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Refused>("far too long a text".to_owned())
        })
        .await
    };
    assert_eq!(run().await.expect("it runs"), "far too long a text");
    let refused = run().await.expect_err("not kept");
    assert_eq!(
        (refused.kind(), refused.verdict()),
        (RefusedKind::ResultNotKept, Verdict::Acknowledge)
    );
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

async fn a_result_is_forgotten_after_its_ttl(stage: Stage) {
    let carrier = Carrier::default();
    let give_up = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let shipping = carrier.clone();
        let task = stage.engines[0]
            .task("ship")
            .global()
            .key("o-1")
            .ttl(Duration::from_millis(200));
        let parcel = task.run(|execution| shipping.ship(execution)).await.expect("shipped");
        if parcel.number == 2 {
            return;
        }
        assert!(tokio::time::Instant::now() < give_up, "it never expires");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn steps_of_a_task_are_done_once(stage: Stage) {
    let carrier = Carrier::default();
    let attempt = async |fails: bool| {
        let shipping = carrier.clone();
        let task = stage.task("o-1").run(move |execution| async move {
            let steps = execution.steps();
            let label = steps.run("label", |_| async {
                Ok::<_, StepFailed>(shipping.0.fetch_add(1, Ordering::SeqCst))
            });
            let label = label.await?;
            if fails {
                return Err(StepFailed("on purpose".to_owned()));
            }
            Ok((label, execution.attempt()))
        });
        task.await
    };
    attempt(true).await.expect_err("on purpose");
    assert_eq!(attempt(false).await.expect("it goes on"), (0, 2));
    assert_eq!(carrier.shipped(), 1);
}

/// Its steps stay, although its error is one that is final.
async fn an_interrupted_step_sets_its_message_aside_until_it_is_settled(stage: Stage) {
    let attempt = async |dies: bool, knows: bool| {
        let task = stage.task("o-1").run(move |execution| async move {
            let steps = execution.steps();
            let body = move |_| async move {
                assert!(!dies, "on purpose");
                Ok::<u32, ShipError>(7)
            };
            let hold = steps.run("hold", body).at_most_once();
            if knows {
                return hold.reconcile(async || Ok(Some(5))).await;
            }
            hold.await
        });
        task.await
    };
    let panicked = attempt(true, false).await.expect_err("in the step");
    assert_eq!(panicked.kind(), Some(RefusedKind::Panicked));
    for _ in 0..2 {
        let interrupted = attempt(false, false).await.expect_err("nobody knows");
        assert_eq!(interrupted.kind(), Some(RefusedKind::Step(StepErrorKind::Interrupted)));
        assert_eq!(interrupted.verdict(), Verdict::SetAside);
    }
    assert_eq!(attempt(false, true).await.expect("it is settled"), 5);
    assert_eq!(attempt(false, false).await.expect("it is recorded"), 5);
}

/// An error of which each is tried again.
#[derive(Debug)]
struct StepFailed(String);

impl fmt::Display for StepFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Refused> for StepFailed {
    fn from(refused: Refused) -> Self {
        Self(refused.to_string())
    }
}

impl TaskError for StepFailed {
    fn verdict(&self) -> Verdict {
        Verdict::REDELIVER
    }
}

macro_rules! on_every_backend {
    ($($backend:ident)*: $tests:tt) => {
        $(on_every_backend!(@one $backend $tests);)*
    };
    (@one $backend:ident [$($test:ident)*]) => {
        mod $backend {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::in_time(super::$test(super::Stage::$backend().await)).await;
                }
            )*
        }
    };
}

on_every_backend! {
    memory redis cluster postgres sqlite: [
        a_message_that_is_delivered_again_gets_the_first_result
        of_many_deliveries_at_once_one_runs
        another_delivery_while_the_first_one_runs_is_redelivered
        an_error_is_tried_again_unless_it_is_final
        another_message_under_a_key_is_set_aside
        a_scope_a_name_and_a_key_keep_messages_apart
        a_task_goes_on_when_its_caller_is_gone
        after_a_crash_a_task_runs_again_or_is_unknown
        a_result_that_is_too_large_is_not_asked_for_again
        a_result_is_forgotten_after_its_ttl
        steps_of_a_task_are_done_once
        an_interrupted_step_sets_its_message_aside_until_it_is_settled
    ]
}
