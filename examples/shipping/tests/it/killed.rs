//! The process killed with SIGKILL at each point of an order, and the client's retry at its successor.
//!
//! Owns the points. A process is killed at a message that it sends to its servers or gets from them, after a call by which it
//! changes a file, or at a moment. `IDEM_KILLS=200 cargo test -p shipping --test it killed` kills 200 processes in each
//! configuration; without the variable, there are 20.

use std::sync::Arc;
use std::time::Duration;

use idem_tests::{PostgresServer, RedisServer, Strace, Tripwire};
use tempfile::TempDir;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

use crate::client::{Answer, Client, order};
use crate::process::Service;

/// How many processes are killed.
const KILLS: usize = 20;

/// How many orders wait for the end of a lease at once.
const AT_ONCE: usize = 6;

/// How long an order is packed.
const DELAY: (&str, &str) = ("SHIPPING_DELAY_MS", "10");

/// The moments are in this time. An order takes less, unless the machine is busy.
const MOMENTS: Duration = Duration::from_millis(40);

/// A point of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kill {
    /// After so many messages.
    AtMessage(usize),
    /// After so many calls that change a file.
    AfterWrite(usize),
    /// So long after the order is sent.
    AtMoment(Duration),
}

/// A kind of point, with how many of them there are: a few more than an order has, so that the last processes live.
#[derive(Clone, Copy, Debug)]
enum Points {
    Messages(usize),
    Writes(usize),
    Moments,
}

impl Points {
    /// The point of one run of several, which are spread over all points.
    fn of_run(self, run: usize, runs: usize) -> Kill {
        match self {
            Self::Messages(count) => Kill::AtMessage(run * count / runs),
            Self::Writes(count) => Kill::AfterWrite(1 + run * count / runs),
            Self::Moments => {
                let [run, runs] = [run, runs].map(|number| u32::try_from(number).expect("a small number"));
                Kill::AtMoment(MOMENTS * run / runs)
            }
        }
    }
}

/// The servers of a configuration, and the files of one process after another.
#[derive(Default)]
struct Scene {
    postgres: Option<PostgresServer>,
    redis: Option<RedisServer>,
}

impl Scene {
    /// Starts the service on the servers, and on a file in the folder where there is no Postgres.
    async fn start(&self, folder: &TempDir, tripwire: &Tripwire) -> Service {
        let mut database = format!("sqlite:{}?mode=rwc", folder.path().join("orders.db").display());
        if let Some(postgres) = &self.postgres {
            let behind = tripwire.before(postgres.address()).await;
            database = postgres
                .url()
                .replace(&postgres.address().to_string(), &behind.to_string());
        }
        let mut variables = vec![DELAY, ("DATABASE_URL", &database)];
        let mut records = String::new();
        if let Some(redis) = &self.redis {
            let behind = tripwire.before(redis.address()).await;
            records = redis.url().replace(&redis.address().to_string(), &behind.to_string());
        }
        if !records.is_empty() {
            variables.push(("REDIS_URL", &records));
        }
        let variables = variables.into_iter().map(|(name, value)| (name, value.to_owned()));
        let variables: Vec<_> = variables.collect();
        // The tasks of the tripwire need the threads that are not blocked.
        let starting = spawn_blocking(move || {
            let variables = variables.iter().map(|(name, value)| (*name, value.as_str()));
            Service::start_with(&variables.collect::<Vec<_>>())
        });
        starting.await.expect("it starts")
    }

    /// Kills the service while it places an order, and lets its successor answer the retry. Returns how many rows there are,
    /// and whether the first process had answered.
    async fn place(&self, run: usize, kill: Kill) -> (usize, bool) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tripwire = Tripwire::default();
        let mut victim = self.start(&folder, &tripwire).await;
        // Its connections are there from now on, and the messages are those of an order.
        let warm = place(victim.client.clone(), format!("warm-{run}"))
            .await
            .expect("it lives");
        assert_eq!(warm.status, 201);
        let order_id = format!("order-{run}");
        let first = self.place_and_kill(&mut victim, &order_id, &tripwire, kill).await;

        let successor = self.start(&folder, &Tripwire::default()).await;
        let retry = place(successor.client.clone(), order_id.clone())
            .await
            .expect("it lives");
        assert_eq!(retry.status, 201, "{kill:?}: {retry:?}");
        if let Some(first) = &first {
            assert_eq!((first.status, &first.body), (201, &retry.body), "{kill:?}: {retry:?}");
            assert_eq!(retry.header("idempotent-replayed"), Some("true"));
        }
        let rows = successor.client.listed("acme-demo").await;
        let rows = rows.iter().filter(|id| **id == order_id).count();
        (rows, first.is_some())
    }

    /// The answer, if it came before the process was killed.
    async fn place_and_kill(
        &self,
        victim: &mut Service,
        order_id: &str,
        tripwire: &Tripwire,
        kill: Kill,
    ) -> Option<Answer> {
        let process = victim.process.id();
        let mut strace = None;
        match kill {
            Kill::AtMessage(number) => tripwire.arm(number, process),
            Kill::AfterWrite(number) => strace = Some(Strace::kill_after(number, process).await),
            Kill::AtMoment(_) => {}
        }
        let placing = tokio::spawn(place(victim.client.clone(), order_id.to_owned()));
        let first = if let Kill::AtMoment(moment) = kill {
            // Whatever the moment comes to on this machine, the result must be the same.
            sleep(moment).await;
            victim.process.kill();
            placing.await
        } else {
            let first = placing.await;
            tripwire.disarm();
            victim.process.kill();
            first
        };
        drop(strace);
        first.expect("no panic").ok()
    }
}

async fn place(client: Client, order_id: String) -> reqwest::Result<Answer> {
    client
        .try_post("/shipping/order", "acme-demo", &order_id, &order(&order_id))
        .await
}

/// How many processes are killed in each configuration.
fn kills() -> usize {
    std::env::var("IDEM_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"))
}

async fn assert_ships_once(scene: Scene, points: &[Points]) {
    let (scene, runs) = (Arc::new(scene), kills() / points.len());
    let all = points
        .iter()
        .flat_map(|points| (0..runs).map(|run| points.of_run(run, runs)));
    let all: Vec<_> = all.enumerate().collect();
    let mut results = Vec::new();
    for at_once in all.chunks(AT_ONCE) {
        let mut placing = JoinSet::new();
        for (run, kill) in at_once.iter().copied() {
            let scene = scene.clone();
            placing.spawn(async move { (kill, scene.place(run, kill).await) });
        }
        results.extend(placing.join_all().await);
    }
    for points in points {
        let answered = |run| {
            let point = points.of_run(run, runs);
            results.iter().any(|(kill, (_, answered))| *kill == point && *answered)
        };
        let unanswered: Vec<_> = (0..runs).filter(|run| !answered(*run)).collect();
        let last = unanswered.last().map(|run| points.of_run(*run, runs));
        println!(
            "{points:?}: {} of {runs} processes died without an answer, the last one {last:?}",
            unanswered.len()
        );
        if !matches!(points, Points::Moments) {
            assert!(!answered(0), "{points:?}: nobody was killed at the first of them");
            assert!(answered(runs - 1), "{points:?}: an order has more of them");
        }
    }
    results.retain(|(_, (rows, _))| *rows != 1);
    assert!(results.is_empty(), "rows by the point of the kill: {results:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_order_ships_once_whenever_the_process_is_killed() {
    assert_ships_once(Scene::default(), &[Points::Writes(24), Points::Moments]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_redis_an_order_ships_once_whenever_the_process_is_killed() {
    let scene = Scene {
        redis: Some(RedisServer::start().await),
        ..Scene::default()
    };
    assert_ships_once(scene, &[Points::Messages(6), Points::Writes(12), Points::Moments]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_postgres_an_order_ships_once_whenever_the_process_is_killed() {
    let scene = Scene {
        postgres: Some(PostgresServer::start().await),
        ..Scene::default()
    };
    assert_ships_once(scene, &[Points::Messages(14), Points::Moments]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_redis_and_postgres_an_order_ships_once_whenever_the_process_is_killed() {
    let scene = Scene {
        postgres: Some(PostgresServer::start().await),
        redis: Some(RedisServer::start().await),
    };
    assert_ships_once(scene, &[Points::Messages(14), Points::Moments]).await;
}
