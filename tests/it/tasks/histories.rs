//! Random tasks of several consumers, whose calls on the backend the specification has to explain.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use idem_core::Backend;
use idem_core::spec::history::{History, Recorder, Report};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::*;

const CONSUMERS: u32 = 4;
const DELIVERIES: u32 = 60;
const KEYS: u64 = 4;

/// A number below `bound` that follows from what it is for.
fn draw(what: (&str, u32, u32), bound: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish() % bound
}

/// Runs the deliveries of one consumer, one after the other. Some run into their end of patience, and their tasks go on.
async fn consume(engine: Engine, consumer: u32) {
    for delivery in 0..DELIVERIES {
        let of = |what, bound| draw((what, consumer, delivery), bound);
        let mut task = engine
            .task("ship")
            .scope("orders")
            .key(&of("key", KEYS))
            .ttl(Duration::from_millis(100 + of("ttl", 200)))
            .lease(Duration::from_millis(100 + of("lease", 100)));
        if of("waits", 3) == 0 {
            task = task.wait(Duration::from_millis(50));
        }
        if of("refuses", 4) == 0 {
            task = task.after_crash(AfterCrash::Refuse);
        }
        let (takes, comes_to) = (Duration::from_millis(of("takes", 60)), of("comes to", 8));
        let run = task.run(move |_| async move {
            sleep(takes).await;
            match comes_to {
                0 => Err(ShipError::Carrier),
                1 => Err(ShipError::NoSuchAddress),
                _ => Ok(delivery),
            }
        });
        // Whatever it comes to.
        let _ = timeout(Duration::from_millis(of("patience", 100)), run).await;
    }
}

/// What the check says of a round whose consumers have these backends.
async fn check<B: Backend>(backend: impl AsyncFn() -> B) -> Report {
    let history = History::new();
    let mut consumers = JoinSet::new();
    for consumer in 0..CONSUMERS {
        let recorder = Recorder::new(backend().await, consumer, history.clone());
        consumers.spawn(consume(Engine::new(recorder), consumer));
    }
    consumers.join_all().await;
    let report = history.check();
    println!("{report}");
    assert_eq!(u64::try_from(report.histories).ok(), Some(KEYS));
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calls_of_random_tasks_are_explained_in_memory() {
    let backend = MemoryBackend::new();
    let report = check(async || backend.clone()).await;
    assert!(report.unexplained.is_empty(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calls_of_random_tasks_are_explained_on_redis() {
    let server = RedisServer::start().await;
    let report = check(async || RedisBackend::connect(&server.url()).await.expect("it answers")).await;
    assert!(report.unexplained.is_empty(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calls_of_random_tasks_are_explained_in_a_file_of_sqlite() {
    let file = SqliteFile::create().await;
    let report = check(async || file.backend().await).await;
    assert!(report.unexplained.is_empty(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calls_of_tasks_that_share_no_store_are_not_explained() {
    let report = check(async || MemoryBackend::new()).await;
    assert!(!report.unexplained.is_empty(), "{report}");
}
