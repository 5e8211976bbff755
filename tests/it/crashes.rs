//! IDEM-7, IDEM-8: processes that are killed at each point on the way of a request, and one that stalls.
//!
//! The process sends the signal to itself at the point that the request names (`idem_tests::lab`).

use std::path::PathBuf;

use axum::http::StatusCode;
use idem_tests::lab::{self, DIE, Entry, Event, Point, REQUEST, Task};
use idem_tests::{Answer, Call, Client, PATIENCE, Process, Program, RedisServer, in_time};
use reqwest::Method;
use tempfile::TempDir;
use tokio::task::JoinSet;

const RERUNNING: &str = "/journaled/brisk";
const REFUSING: &str = "/journaled/brisk-refusing";
const TWICE: &str = "/journaled/brisk-twice";
const BRIEFLY: &str = "/journaled/brisk-briefly";

/// Two processes on one Redis, and the journal that they keep.
struct Scene {
    owner: Process,
    other: Process,
    folder: TempDir,
    program: Program,
    _redis: RedisServer,
}

impl Scene {
    async fn new() -> Self {
        let redis = RedisServer::start().await;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let program = Program::new(env!("CARGO_BIN_EXE_server"), &redis.url()).journaled(&journal(&folder));
        Self {
            owner: program.start(),
            other: program.start(),
            folder,
            program,
            _redis: redis,
        }
    }

    fn entries(&self) -> Vec<Entry> {
        lab::read(&journal(&self.folder))
    }

    /// The attempts that handlers were told they are, in the order in which they began.
    fn attempts(&self) -> Vec<u32> {
        let entries = self.entries();
        let began = entries.iter().filter_map(|entry| match entry.event {
            Event::Began { attempt, .. } => Some(attempt),
            _ => None,
        });
        began.collect()
    }

    fn effects(&self) -> usize {
        let entries = self.entries();
        let is_effect = |entry: &&Entry| matches!(entry.event, Event::Effect { .. });
        entries.iter().filter(is_effect).count()
    }

    /// Waits for the first process to be dead, and sends three more requests to the second.
    async fn retry(&mut self, path: &str) -> Vec<Answer> {
        while !self.owner.has_ended() {
            tokio::task::yield_now().await;
        }
        let calls: JoinSet<_> = (0..3).map(|_| call(&self.other.client, path, 0).send()).collect();
        calls.join_all().await
    }
}

fn journal(folder: &TempDir) -> PathBuf {
    folder.path().join("journal")
}

fn call(client: &Client, path: &str, takes: u64) -> Call {
    let order = "o".to_owned();
    let call = client.call(Method::POST, path).key("k");
    call.json(&Task {
        order,
        takes,
        padding: 0,
    })
    .header(REQUEST, b"r")
}

/// Kills the first process at a point, and lets others ask again.
async fn crash(path: &str, point: Point) -> (Scene, Vec<Answer>) {
    let mut scene = Scene::new().await;
    let doomed = call(&scene.owner.client, path, 0).header(DIE, point.name().as_bytes());
    assert!(doomed.try_send().await.is_err(), "its client gets no answer");
    let answers = scene.retry(path).await;
    (scene, answers)
}

/// All have one answer, of an attempt; one of them may be the first to get it.
fn assert_one_answer(answers: &[Answer], attempt: u32, firsts: usize) {
    let first = answers.iter().filter(|answer| !answer.is_replay());
    assert_eq!(first.count(), firsts, "{answers:?}");
    for answer in answers {
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        assert_eq!(answer.body, answers[0].body);
        assert_eq!(answer.json()["attempt"], attempt);
    }
}

fn assert_unknown(answers: &[Answer]) {
    for answer in answers {
        assert_eq!(answer.problem(), "outcome-unknown", "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_the_claim_a_retry_is_the_first_attempt() {
    in_time(async {
        for path in [RERUNNING, REFUSING] {
            let (scene, answers) = crash(path, Point::BeforeClaim).await;
            assert_one_answer(&answers, 1, 1);
            assert_eq!((scene.attempts(), scene.effects()), (vec![1], 1));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_mid_handler_it_is_run_again_as_attempt_two() {
    in_time(async {
        let (scene, answers) = crash(RERUNNING, Point::BeforeEffect).await;
        assert_one_answer(&answers, 2, 1);
        assert_eq!((scene.attempts(), scene.effects()), (vec![1, 2], 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_mid_handler_it_is_not_run_again_where_that_is_refused() {
    in_time(async {
        let (scene, answers) = crash(REFUSING, Point::BeforeEffect).await;
        assert_unknown(&answers);
        assert_eq!((scene.attempts(), scene.effects()), (vec![1], 0));
    })
    .await;
}

/// What no library can mend: the effect is there, and nobody knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_effect_and_completion_it_has_its_effect_again_as_attempt_two() {
    in_time(async {
        let (scene, answers) = crash(RERUNNING, Point::AfterEffect).await;
        assert_one_answer(&answers, 2, 1);
        assert_eq!((scene.attempts(), scene.effects()), (vec![1, 2], 2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_effect_and_completion_it_has_its_effect_once_where_a_rerun_is_refused() {
    in_time(async {
        let (scene, answers) = crash(REFUSING, Point::AfterEffect).await;
        assert_unknown(&answers);
        assert_eq!((scene.attempts(), scene.effects()), (vec![1], 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_completion_a_retry_gets_the_answer_that_nobody_got() {
    in_time(async {
        for path in [RERUNNING, REFUSING] {
            let (scene, answers) = crash(path, Point::AfterCompletion).await;
            assert_one_answer(&answers, 1, 0);
            assert_eq!((scene.attempts(), scene.effects()), (vec![1], 1));
        }
    })
    .await;
}

/// IDEM-8. Its process stands still for longer than its lease, and goes on when another one has run in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_superseded_owner_records_nothing_and_its_client_gets_its_answer() {
    in_time(async {
        let scene = Scene::new().await;
        // The handler takes long enough to be stopped half-way, also on a busy machine.
        let stalled = tokio::spawn(call(&scene.owner.client, RERUNNING, 1000).send());
        let since = std::time::Instant::now();
        while !journal(&scene.folder).exists() || scene.attempts().is_empty() {
            assert!(since.elapsed() < PATIENCE, "it never begins");
            tokio::task::yield_now().await;
        }
        scene.owner.freeze();
        let takeover = call(&scene.other.client, RERUNNING, 1000).send().await;
        assert_eq!(takeover.json()["attempt"], 2);
        scene.owner.thaw();

        let stalled = stalled.await.expect("no panic");
        assert_eq!(stalled.status, StatusCode::CREATED);
        assert_eq!(stalled.json()["attempt"], 1);
        assert!(stalled.says_not_stored(), "{stalled:?}");
        for client in [&scene.owner.client, &scene.other.client] {
            call(client, RERUNNING, 1000).send().await.assert_replays(&takeover);
        }
        assert_eq!(scene.attempts(), [1, 2]);
    })
    .await;
}

/// A request that kills each process that it comes to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_kills_its_process_is_run_as_often_as_it_may_and_then_refused() {
    in_time(async {
        let mut scene = Scene::new().await;
        let third = scene.program.start();
        for (attempt, doomed) in [&mut scene.owner, &mut scene.other].into_iter().enumerate() {
            let deadly = call(&doomed.client, TWICE, 0).header(DIE, Point::BeforeEffect.name().as_bytes());
            assert!(deadly.try_send().await.is_err(), "attempt {attempt} answers");
            while !doomed.has_ended() {
                tokio::task::yield_now().await;
            }
        }
        let deadly = call(&third.client, TWICE, 0).header(DIE, Point::BeforeEffect.name().as_bytes());
        assert_unknown(&[deadly.send().await, call(&third.client, TWICE, 0).send().await]);
        assert_eq!((scene.attempts(), scene.effects()), (vec![1, 2], 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_began_too_long_ago_is_not_run_again_by_another_process() {
    in_time(async {
        let (scene, answers) = crash(BRIEFLY, Point::BeforeEffect).await;
        assert_unknown(&answers);
        assert_eq!((scene.attempts(), scene.effects()), (vec![1], 0));
    })
    .await;
}
