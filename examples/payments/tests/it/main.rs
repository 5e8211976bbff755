//! A payment survives its process: killed at every message that it sends or gets, it is made once.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod provider;
mod service;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use idem_tests::{PostgresServer, Tripwire};
use tokio::task::JoinSet;

use crate::provider::Provider;
use crate::service::{Service, pay};

const RUNS: usize = 200;

/// What the database says to that.
const PAID: i64 = 200;

/// Far more than all of it takes.
const LIMIT: Duration = Duration::from_mins(5);

/// How many payments are made at a time.
const WORKERS: usize = 6;

/// A few more messages than a payment takes, so that some live.
const MESSAGES: usize = 40;

/// What all payments share.
struct Scene {
    database: PostgresServer,
    provider: Provider,
    /// A service that lives, for retries.
    survivor: Service,
}

impl Scene {
    async fn set() -> Self {
        let database = PostgresServer::start().await;
        let provider = Provider::start().await;
        let survivor = Service::start(database.url(), provider.url()).await;
        Self {
            database,
            provider,
            survivor,
        }
    }

    async fn count(&self, what: &str) -> i64 {
        self.database.query(&format!("SELECT count(*) FROM {what}")).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_whose_process_is_killed_at_any_message_is_made_exactly_once() {
    let made = tokio::time::timeout(LIMIT, make_all_payments()).await;
    made.expect("a payment hangs");
}

async fn make_all_payments() {
    let scene = Arc::new(Scene::set().await);
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let (scene, next) = (scene.clone(), next.clone());
        workers.spawn(async move {
            let mut deaths = Vec::new();
            loop {
                let run = next.fetch_add(1, Ordering::Relaxed);
                if run >= RUNS {
                    return deaths;
                }
                deaths.extend(die_and_retry(&scene, run).await);
            }
        });
    }
    let deaths: Vec<_> = workers.join_all().await.into_iter().flatten().collect();

    assert_eq!(scene.count("ledger").await, PAID, "rows in the ledger");
    assert_eq!(scene.count("(SELECT DISTINCT reference FROM ledger) paid").await, PAID);
    let left: i64 = scene
        .database
        .query("SELECT cents FROM accounts WHERE name = 'acme'")
        .await;
    assert_eq!(left, 1_000_000 - PAID, "a cent each");
    for run in 0..RUNS {
        assert_eq!(
            scene.provider.charges(&format!("order-{run}")),
            1,
            "charges of order {run}"
        );
    }
    let points: std::collections::BTreeSet<_> = deaths.iter().collect();
    println!("killed {} of {RUNS} times, at {} points", deaths.len(), points.len());
    assert!(deaths.len() > RUNS / 4, "most lived: {} died", deaths.len());
}

/// Makes a payment by a service that is killed at one of its messages, and again by one that lives. Says at which
/// message, if it came to it.
async fn die_and_retry(scene: &Scene, run: usize) -> Option<usize> {
    let reference = format!("order-{run}");
    let tripwire = Tripwire::default();
    let database = tripwire.before(scene.database.address()).await;
    let provider = tripwire.before(scene.provider.address()).await;
    let (address, behind) = (scene.database.address().to_string(), database.to_string());
    let victim = Service::start(
        scene.database.url().replace(&address, &behind),
        format!("http://{provider}"),
    )
    .await;
    let point = run % MESSAGES;
    tripwire.arm(point, victim.process_id());
    let first = pay(&victim.url, &reference).await;
    tripwire.disarm();
    drop(victim);
    let retry = loop {
        let answer = pay(&scene.survivor.url, &reference).await.expect("it lives");
        if answer.status() == 201 {
            break answer;
        }
        // While the database looks for what the dead one has left, or its claim has not lapsed.
        assert!([409, 503].contains(&answer.status().as_u16()), "{answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    if let Ok(first) = first {
        assert!(
            retry.headers().contains_key("idempotent-replayed"),
            "{first:?}, then {retry:?}"
        );
        return None;
    }
    Some(point)
}
