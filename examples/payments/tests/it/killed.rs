//! The service killed with SIGKILL at each point of a payment, and the client's retry at a service that lives.
//!
//! `IDEM_KILLS=300 cargo test -p payments --test it killed` kills 300 processes on each kind of storage; without the variable, there
//! are 60.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use idem_tests::{Strace, Tripwire};
use tokio::task::JoinSet;

use crate::scene::{Scene, Storage};
use crate::service::{Service, pay};

const KILLS: usize = 60;

/// Far more than all of it takes.
const LIMIT: Duration = Duration::from_mins(10);

/// How many payments are made at a time: fewer in `SQLite`, where those that are held back hold all others up.
fn workers(storage: Storage) -> usize {
    match storage {
        Storage::Sqlite => 3,
        Storage::Postgres | Storage::Redis => 6,
    }
}

/// A few more messages than a payment takes, so that some live.
const MESSAGES: usize = 56;

/// A few more writes to the file than a payment takes in `SQLite`, and messages to the provider.
const WRITES: usize = 60;
const CALLS: usize = 12;

/// A point of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Point {
    Message(usize),
    Write(usize),
}

impl Point {
    /// The point of one run: on a server each message, and on a file each write and each call of the provider.
    fn of(storage: Storage, run: usize) -> Self {
        match storage {
            Storage::Postgres | Storage::Redis => Self::Message(run % MESSAGES),
            Storage::Sqlite if run % 6 == 5 => Self::Message(run / 6 % CALLS),
            Storage::Sqlite => Self::Write(1 + run % WRITES),
        }
    }
}

async fn make_all_payments(storage: Storage) {
    let kills = std::env::var("IDEM_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"));
    let scene = Scene::set(storage).await;
    let survivor = Arc::new(scene.start(None).await);
    let next = Arc::new(AtomicUsize::new(0));
    let mut payments = JoinSet::new();
    for _ in 0..workers(storage) {
        let (scene, survivor, next) = (scene.clone(), survivor.clone(), next.clone());
        payments.spawn(async move {
            let mut deaths = Vec::new();
            loop {
                let run = next.fetch_add(1, Ordering::Relaxed);
                if run >= kills {
                    return deaths;
                }
                deaths.extend(die_and_retry(&scene, &survivor, Point::of(storage, run), run).await);
            }
        });
    }
    let deaths: Vec<_> = payments.join_all().await.into_iter().flatten().collect();

    let paid = i64::try_from(kills).expect("a small number");
    assert_eq!(
        scene.query("SELECT count(*) FROM ledger").await,
        paid,
        "rows in the ledger"
    );
    let references = scene.query("SELECT count(DISTINCT reference) FROM ledger").await;
    assert_eq!(references, paid);
    let left = scene.query("SELECT cents FROM accounts WHERE name = 'acme'").await;
    assert_eq!(left, 1_000_000 - paid, "a cent each");
    let wrong: Vec<_> = (0..kills)
        .map(|run| (run, scene.provider.done(&format!("order-{run}"))))
        .filter(|(_, done)| *done != [1, 1, 1])
        .collect();
    assert!(wrong.is_empty(), "holds, captures and mails: {wrong:?}");
    let points: BTreeSet<_> = deaths.iter().collect();
    println!(
        "{storage:?}: killed {} of {kills}, at {} points",
        deaths.len(),
        points.len()
    );
    assert!(deaths.len() > kills / 3, "most lived: {} died", deaths.len());
}

/// Makes a payment by a service that is killed at `point`, and again by one that lives. Says at which point, if it came to it.
async fn die_and_retry(scene: &Scene, survivor: &Service, point: Point, run: usize) -> Option<Point> {
    let reference = format!("order-{run}");
    let tripwire = Tripwire::default();
    let victim = scene.start(Some(&tripwire)).await;
    let strace = match point {
        Point::Message(number) => {
            tripwire.arm(number, victim.process_id());
            None
        }
        Point::Write(number) => Some(Strace::kill_after(number, victim.process_id()).await),
    };
    let first = pay(&victim.url, &reference).await;
    tripwire.disarm();
    drop(victim);
    drop(strace);
    let retry = loop {
        let answer = pay(&survivor.url, &reference).await.expect("it lives");
        if answer.status() == 201 {
            break answer;
        }
        // While the database looks for what the dead one has left, or its claim has not lapsed.
        assert!([409, 503].contains(&answer.status().as_u16()), "{point:?}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    match first {
        // An answer that could not be recorded in time says so, and its process is gone before it is.
        Ok(first) if first.status() == 201 && !first.headers().contains_key("idempotency-stored") => {
            assert!(
                retry.headers().contains_key("idempotent-replayed"),
                "{first:?}, then {retry:?}"
            );
            None
        }
        // The tripwire may cut the line to a server just before the process dies.
        _ => Some(point),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_postgres_a_payment_whose_process_is_killed_at_any_message_is_made_once() {
    let made = tokio::time::timeout(LIMIT, make_all_payments(Storage::Postgres)).await;
    made.expect("a payment hangs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_sqlite_a_payment_whose_process_is_killed_at_any_write_or_call_is_made_once() {
    let made = tokio::time::timeout(LIMIT, make_all_payments(Storage::Sqlite)).await;
    made.expect("a payment hangs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_a_payment_whose_process_is_killed_at_any_message_is_made_once() {
    let made = tokio::time::timeout(LIMIT, make_all_payments(Storage::Redis)).await;
    made.expect("a payment hangs");
}
