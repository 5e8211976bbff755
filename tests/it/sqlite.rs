//! Processes that share one file of SQLite: kills, full disks and strangers. IDEM-1, IDEM-2, IDEM-4, IDEM-7, IDEM-13.

use std::time::Duration;

use axum::http::StatusCode;
use idem_tests::{Answer, Client, Order, Process, Program, SqliteFile, in_time};
use reqwest::Method;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

const WAITING: &str = "/orders/waiting";
const WAITING_LONG: &str = "/orders/waiting-long";

/// A file, and processes that share it.
struct Scene<const PROCESSES: usize> {
    processes: [Process; PROCESSES],
    program: Program,
    file: SqliteFile,
}

impl<const PROCESSES: usize> Scene<PROCESSES> {
    async fn new() -> Self {
        Self::on(SqliteFile::create().await)
    }

    /// `None` where no disk can be mounted.
    async fn on_disk() -> Option<Self> {
        let file = SqliteFile::create_on_disk().await;
        if file.disk().is_none() {
            println!("left out: only an administrator can mount a disk");
            return None;
        }
        Some(Self::on(file))
    }

    fn on(file: SqliteFile) -> Self {
        let program = Program::new(env!("CARGO_BIN_EXE_server"), &file.url());
        Self {
            processes: [(); PROCESSES].map(|()| program.start()),
            program,
            file,
        }
    }

    fn client(&self, at: usize) -> &Client {
        &self.processes[at].client
    }

    fn records(&self) -> impl Future<Output = i64> {
        self.file.query("SELECT count(*) FROM idem_records")
    }

    /// How often an order was executed, in all processes that live.
    async fn executions(&self, order: &str) -> u64 {
        let mut sum = 0;
        for process in &self.processes {
            sum += executions(&process.client, order).await;
        }
        sum
    }
}

async fn executions(client: &Client, order: &str) -> u64 {
    let path = format!("/executions/{order}");
    let answer = client.call(Method::GET, &path).send().await;
    answer.json().as_u64().expect("a number")
}

async fn open_gate(client: &Client) {
    let answer = client.call(Method::POST, "/gate").send().await;
    assert_eq!(answer.status, StatusCode::OK);
}

/// Sends a held order under a key of the same name, and waits until its handler has begun. There is no answer if its process dies.
async fn begin(client: &Client, path: &str, order: &str) -> JoinHandle<Option<Answer>> {
    let call = client.order_at(path, order, &Order::new(order).held());
    let held = tokio::spawn(async move { call.try_send().await.ok() });
    while executions(client, order).await == 0 {
        tokio::task::yield_now().await;
    }
    held
}

fn assert_unavailable(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert_eq!(answer.problem(), "backend-unavailable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_duplicate_on_another_process_waits_and_gets_the_answer() {
    in_time(async {
        let scene = Scene::<2>::new().await;
        let first = begin(scene.client(0), WAITING, "o").await;
        let duplicate = scene.client(1).order_at(WAITING, "o", &Order::new("o").held());
        let mut duplicate = tokio::spawn(duplicate.send());
        let early = timeout(Duration::from_millis(300), &mut duplicate).await;
        assert!(early.is_err(), "it did not wait: {early:?}");
        open_gate(scene.client(0)).await;
        let first = first.await.expect("no panic").expect("an answer");
        assert_eq!(first.status, StatusCode::CREATED);
        duplicate.await.expect("no panic").assert_replays(&first);
        assert_eq!(scene.executions("o").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_in_the_middle_of_a_handler_another_process_runs_it_as_attempt_two() {
    in_time(async {
        let mut scene = Scene::<2>::new().await;
        let doomed = begin(scene.client(0), WAITING, "o").await;
        scene.processes[0].kill();
        assert_eq!(doomed.await.expect("no panic"), None, "its client gets no answer");
        open_gate(scene.client(1)).await;
        let order = Order::new("o").held();
        let second = scene.client(1).order_at(WAITING, "o", &order).send().await;
        assert_eq!(second.status, StatusCode::CREATED, "{second:?}");
        assert!(!second.is_replay());
        assert_eq!(second.json()["attempt"], 2);
        let third = scene.client(1).order_at(WAITING, "o", &order).send().await;
        third.assert_replays(&second);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_survives_that_all_processes_are_killed_at_once() {
    in_time(async {
        let mut scene = Scene::<3>::new().await;
        let order = Order::new("o");
        let first = scene.client(0).order("o", &order).send().await;
        for process in &mut scene.processes {
            process.send_kill();
        }
        for process in &mut scene.processes {
            process.kill();
        }
        let log = std::fs::metadata(scene.file.log());
        assert!(log.is_ok_and(|log| log.len() > 0), "the log was emptied");
        scene.processes = [(); 3].map(|()| scene.program.start());
        for process in &scene.processes {
            process.client.order("o", &order).send().await.assert_replays(&first);
        }
        assert_eq!(scene.executions("o").await, 0, "in the new processes");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_crowd_on_three_processes_each_key_runs_once() {
    const KEYS: usize = 20;
    const REQUESTS: usize = 200;
    in_time(async {
        let scene = Scene::<3>::new().await;
        let mut crowd = JoinSet::new();
        for number in 0..REQUESTS {
            let order = format!("o{}", number % KEYS);
            // Seven is no divisor of the keys, so that each key comes to every process.
            let call = scene
                .client(number / 7 % 3)
                .order_at(WAITING, &order, &Order::new(&order));
            crowd.spawn(async move { (order, call.send().await) });
        }
        let mut answers = crowd.join_all().await;
        answers.sort_by(|(one, _), (other, _)| one.cmp(other));
        for of_key in answers.chunk_by(|(one, _), (other, _)| one == other) {
            let (order, answer) = &of_key[0];
            assert_eq!(of_key.len(), REQUESTS / KEYS);
            assert!(of_key.iter().all(|(_, other)| other.body == answer.body), "{of_key:?}");
            assert!(of_key.iter().all(|(_, other)| other.status == StatusCode::CREATED));
            let firsts = of_key.iter().filter(|(_, answer)| !answer.is_replay());
            assert_eq!((firsts.count(), scene.executions(order).await), (1, 1), "{order}");
        }
        assert_eq!(scene.records().await, 20);
    })
    .await;
}

/// What was recorded before is replayed, nothing new begins, and what has run meanwhile is recorded once that can be done.
async fn nothing_is_lost_while(spoil: impl FnOnce(&SqliteFile), mend: impl FnOnce(&SqliteFile), scene: Scene<2>) {
    let client = scene.client(0);
    let before = client.order("before", &Order::new("before")).send().await;
    let held = begin(client, WAITING_LONG, "held").await;
    spoil(&scene.file);
    for client in [scene.client(0), scene.client(1)] {
        assert_unavailable(&client.order("new", &Order::new("new")).send().await);
        let replay = client.order("before", &Order::new("before")).send().await;
        replay.assert_replays(&before);
    }
    assert_eq!(scene.executions("new").await, 0);
    open_gate(client).await;
    let held = held.await.expect("no panic").expect("an answer");
    assert_eq!(held.status, StatusCode::CREATED);
    assert!(held.says_not_stored(), "{held:?}");

    mend(&scene.file);
    let other = scene.client(1);
    let retry = other.order_at(WAITING_LONG, "held", &Order::new("held").held());
    let retry = retry.send().await;
    assert!(retry.is_replay(), "{retry:?}");
    assert_eq!(retry.body, held.body);
    let new = other.order("new", &Order::new("new")).send().await;
    assert_eq!(new.status, StatusCode::CREATED, "{new:?}");
    assert_eq!(scene.executions("held").await, 1);
    assert_eq!(scene.executions("new").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_full_disk_requests_are_refused_and_nothing_is_lost() {
    in_time(async {
        let Some(scene) = Scene::on_disk().await else { return };
        assert!(scene.file.empty_log().await, "nobody reads");
        let fill = |file: &SqliteFile| file.disk().expect("it was mounted").fill();
        let make_room = |file: &SqliteFile| file.disk().expect("it was mounted").make_room();
        nothing_is_lost_while(fill, make_room, scene).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_read_only_file_requests_are_refused_and_nothing_is_lost() {
    in_time(async {
        let Some(scene) = Scene::on_disk().await else { return };
        let set = |is_read_only| move |file: &SqliteFile| assert!(file.set_read_only(is_read_only));
        nothing_is_lost_while(set(true), set(false), scene).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_stranger_writes_for_longer_than_the_deadline_requests_are_refused_and_run_once_afterwards() {
    in_time(async {
        let scene = Scene::<2>::new().await;
        let before = scene.client(0).order("before", &Order::new("before")).send().await;
        let stranger = scene.file.hold_writes().await;
        for client in [scene.client(0), scene.client(1)] {
            assert_unavailable(&client.order("new", &Order::new("new")).send().await);
            let replay = client.order("before", &Order::new("before")).send().await;
            replay.assert_replays(&before);
        }
        assert_eq!((scene.executions("new").await, scene.records().await), (0, 1));
        drop(stranger);
        let new = scene.client(0).order("new", &Order::new("new")).send().await;
        assert_eq!(new.status, StatusCode::CREATED, "{new:?}");
        assert_eq!((scene.executions("new").await, scene.records().await), (1, 2));
    })
    .await;
}
