//! IDEM-4, IDEM-7, IDEM-13: duplicates that wait, owners that die, and handlers that run in an outage.

use axum::Router;
use axum::http::StatusCode;
use idem_axum::RedisBackend;
use idem_tests::{Answer, Client, Order, Process, Proxy, RedisServer, Service, in_time, on_every_backend, until};
use reqwest::Method;
use tokio::task::JoinSet;

on_every_backend! {
    duplicates_wait_for_the_first_ones_answer
    a_waiter_whose_client_has_gone_leaves_the_others_waiting
    of_those_who_wait_for_a_failure_one_runs_again
    an_accepted_duplicate_is_told_to_come_back
    a_handler_knows_its_run
}

/// Sends `count` equal requests to the clients in turn.
fn send(clients: &[Client], path: &str, order: &Order, count: usize) -> JoinSet<Answer> {
    let calls = clients.iter().cycle().take(count);
    calls.map(|client| client.order_at(path, "k", order).send()).collect()
}

async fn executions(clients: &[Client], order: &str) -> u64 {
    let mut executions = 0;
    for client in clients {
        let answer = client.call(Method::GET, &format!("/executions/{order}")).send().await;
        executions += answer.json().as_u64().expect("a number");
    }
    executions
}

/// One of the answers is the first one, and the others are its replays.
async fn assert_one_answer(mut calls: JoinSet<Answer>) -> Answer {
    let mut answers = Vec::new();
    while let Some(answer) = calls.join_next().await {
        answers.push(answer.expect("no panic"));
    }
    let first = answers.iter().position(|answer| !answer.is_replay());
    let first = answers.remove(first.expect("one was executed"));
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    for answer in answers {
        answer.assert_replays(&first);
    }
    first
}

async fn duplicates_wait_for_the_first_ones_answer(service: Service) {
    let order = Order::new("o").held();
    let mut calls = send(std::slice::from_ref(&service.client), "/orders/waiting", &order, 100);
    service.app.wait_until_started(1).await;
    tokio::select! {
        biased;
        early = calls.join_next() => panic!("nobody has an answer yet: {early:?}"),
        () = tokio::time::sleep(std::time::Duration::from_millis(200)) => service.app.open_gate(),
    }
    assert_one_answer(calls).await;
    assert_eq!(service.app.executions("o"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_duplicates_wait_over_two_processes() {
    in_time(async {
        let redis = RedisServer::start().await;
        let processes = [(); 2].map(|()| Process::start(env!("CARGO_BIN_EXE_server"), &redis.url()));
        let clients = processes.each_ref().map(|process| process.client.clone());
        let order = Order::new("o").held();
        let calls = send(&clients, "/orders/waiting-long", &order, 200);
        // In each process, somebody asks for the lease when the first duplicate comes and once it listens.
        redis.wait_for_calls("pttl", 2 * 2).await;
        for client in &clients {
            client.call(Method::POST, "/gate").send().await;
        }
        assert_one_answer(calls).await;
        assert_eq!(executions(&clients, "o").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_costs_a_constant_number_of_commands_and_nothing_polls() {
    in_time(async {
        const WAITERS: u64 = 20;
        let service = Service::redis(Router::new()).await;
        let redis = service.redis.as_ref().expect("it has one");
        service.client.order("warm", &Order::new("warm")).send().await;
        let order = Order::new("o").held();
        let mut calls = send(std::slice::from_ref(&service.client), "/orders/waiting-long", &order, 1);
        service.app.wait_until_started(1 + 1).await;

        redis.reset().await;
        for _ in 0..WAITERS {
            calls.spawn(service.client.order_at("/orders/waiting-long", "k", &order).send());
        }
        redis.wait_for_calls("pttl", 2).await;
        service.app.open_gate();
        assert_one_answer(calls).await;
        redis.wait_for_calls("unsubscribe", 1).await;

        let commands = redis.commands().await;
        let called = |name: &str| {
            commands
                .iter()
                .find(|(known, _)| known == name)
                .map_or(0, |(_, calls)| *calls)
        };
        let names: Vec<_> = commands.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "evalsha",
            "getrange",
            "pttl",
            "publish",
            "script|load",
            "set",
            "subscribe",
            "unsubscribe",
        ];
        assert_eq!(names, expected, "{commands:?}");
        for once in ["publish", "script|load", "subscribe", "unsubscribe"] {
            assert_eq!(called(once), 1, "{commands:?}");
        }
        // Each look at a lease reads its claim too, and the completion reads the claim once. Loading a script may repeat a call.
        let looks = called("pttl");
        assert_eq!(called("getrange"), looks + 1, "{commands:?}");
        assert!(called("evalsha") <= looks + 3, "{commands:?}");
        // At most a look when it comes, one once it listens, one when it is told; and the completion's own. Most are shared.
        assert!(
            called("pttl") <= 2 * WAITERS && called("set") <= 3 * WAITERS + 1,
            "{commands:?}"
        );
        assert_eq!(redis.channels().await, 0);
    })
    .await;
}

async fn a_waiter_whose_client_has_gone_leaves_the_others_waiting(service: Service) {
    let order = Order::new("o").held();
    let clients = [service.client.clone()];
    let calls = send(&clients, "/orders/waiting", &order, 3);
    service.app.wait_until_started(1).await;
    let leaving = tokio::spawn(service.client.order_at("/orders/waiting", "k", &order).send());
    // It has waited, or is about to; either way the server drops its request.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    leaving.abort();
    service.app.open_gate();
    assert_one_answer(calls).await;
    assert_eq!(service.app.executions("o"), 1);
}

async fn of_those_who_wait_for_a_failure_one_runs_again(service: Service) {
    let order = Order::new("o").held().answered_with(503);
    let clients = [service.client.clone()];
    let mut calls = send(&clients, "/orders/waiting", &order, 3);
    service.app.wait_until_started(1).await;
    service.app.open_gate();
    // Nothing is kept, so each in turn runs again and none gets another one's failure.
    let mut seen = Vec::new();
    while let Some(answer) = calls.join_next().await {
        let answer = answer.expect("no panic");
        assert!(!answer.is_replay(), "{answer:?}");
        seen.push(answer.json()["execution"].as_u64());
    }
    seen.sort_unstable();
    assert_eq!(seen, [Some(1), Some(2), Some(3)]);
}

async fn an_accepted_duplicate_is_told_to_come_back(service: Service) {
    let order = Order::new("o").held();
    let first = tokio::spawn(service.client.order_at("/orders/accepting", "k", &order).send());
    service.app.wait_until_started(1).await;
    let accepted = service.client.order_at("/orders/accepting", "k", &order).send().await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED);
    assert!(accepted.headers.contains_key("retry-after") && !accepted.is_replay());
    let other = service
        .client
        .order_at("/orders/accepting", "k", &Order::new("other"))
        .send()
        .await;
    assert_eq!(other.problem(), "key-reused", "422 comes before 202");
    service.app.open_gate();
    let first = first.await.expect("no panic");
    service
        .client
        .order_at("/orders/accepting", "k", &order)
        .send()
        .await
        .assert_replays(&first);
}

async fn a_handler_knows_its_run(service: Service) {
    let first = service
        .client
        .order_at("/orders/waiting", "k", &Order::new("o"))
        .send()
        .await
        .json();
    let other = service
        .client
        .order_at("/orders/waiting", "l", &Order::new("o"))
        .send()
        .await
        .json();
    assert_eq!((&first["attempt"], &other["attempt"]), (&1.into(), &1.into()));
    assert_ne!(first["downstream"], other["downstream"]);
    let protected = service
        .client
        .order_at("/orders/run-in-outage", "k", &Order::new("o"))
        .send()
        .await;
    assert_eq!(protected.json()["protected"], true);
}

/// A process is killed while its handler runs; five duplicates wait in another one.
async fn kill_the_owner(path: &str, redis: &RedisServer) -> (JoinSet<Answer>, Process) {
    let mut owner = Process::start(env!("CARGO_BIN_EXE_server"), &redis.url());
    let other = Process::start(env!("CARGO_BIN_EXE_server"), &redis.url());
    let order = Order::new("o").held();
    let first = tokio::spawn(owner.client.order_at(path, "k", &order).try_send());
    redis.wait_for_calls("set", 1).await;
    let waiters = send(std::slice::from_ref(&other.client), path, &order, 5);
    redis.wait_for_calls("pttl", 2).await;
    owner.kill();
    assert!(first.await.expect("no panic").is_err(), "its client gets no answer");
    other.client.call(Method::POST, "/gate").send().await;
    (waiters, other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idem_7_one_of_those_who_wait_inherits_a_dead_owners_claim_as_attempt_two() {
    in_time(async {
        let redis = RedisServer::start().await;
        let (waiters, other) = kill_the_owner("/orders/waiting", &redis).await;
        let answer = assert_one_answer(waiters).await;
        assert_eq!(answer.json()["attempt"], 2);
        assert_eq!(executions(std::slice::from_ref(&other.client), "o").await, 1);
        // The calls that the handler makes itself carry the key that attempt one gave them.
        let here = Service::start(
            RedisBackend::connect(&redis.url()).await.expect("the server answers"),
            Router::new(),
            None,
        )
        .await;
        let replay = here
            .client
            .order_at("/orders/waiting", "k", &Order::new("o").held())
            .send()
            .await;
        assert_eq!(replay.json()["downstream"], answer.json()["downstream"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idem_7_where_a_crash_refuses_all_who_wait_are_told_that_the_outcome_is_unknown() {
    in_time(async {
        let redis = RedisServer::start().await;
        let (mut waiters, other) = kill_the_owner("/orders/refusing", &redis).await;
        while let Some(answer) = waiters.join_next().await {
            let answer = answer.expect("no panic");
            assert_eq!(answer.status, StatusCode::CONFLICT);
            assert_eq!(answer.problem(), "outcome-unknown");
        }
        let later = other
            .client
            .order_at("/orders/refusing", "k", &Order::new("o").held())
            .send()
            .await;
        assert_eq!(later.problem(), "outcome-unknown");
        assert_eq!(executions(std::slice::from_ref(&other.client), "o").await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idem_13_where_the_author_says_so_a_handler_runs_in_an_outage_and_says_so() {
    let mut service = Service::redis(Router::new()).await;
    service.redis.as_mut().expect("it has one").kill();
    for execution in 1..=2 {
        let answer = service
            .client
            .order_at("/orders/run-in-outage", "k", &Order::new("o"))
            .send()
            .await;
        assert_eq!(answer.status, StatusCode::CREATED);
        assert!(answer.says_not_stored());
        assert_eq!(answer.json()["execution"], execution);
        assert_eq!(answer.json()["protected"], false);
    }
}

/// A lost message costs time and not the answer: those who wait look again when their connection breaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_whose_connection_breaks_subscribe_anew() {
    in_time(async {
        let service = Service::redis(Router::new()).await;
        let redis = service.redis.as_ref().expect("it has one");
        let order = Order::new("o").held();
        let calls = send(std::slice::from_ref(&service.client), "/orders/waiting-long", &order, 4);
        redis.wait_for_calls("pttl", 2).await;
        for _ in 0..3 {
            redis.reset().await;
            redis.kill_subscribers().await;
            redis.wait_for_calls("subscribe", 1).await;
        }
        service.app.open_gate();
        assert_one_answer(calls).await;
        assert_eq!(service.app.executions("o"), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_of_life_leaves_waiters_subscribed() {
    in_time(async {
        let service = Service::redis(Router::new()).await;
        let redis = service.redis.as_ref().expect("it has one");
        let order = Order::new("o").held();
        let calls = send(std::slice::from_ref(&service.client), "/orders/waiting-long", &order, 4);
        redis.wait_for_calls("pttl", 2).await;
        // Twice, so that what belongs to the first one has been done.
        redis.wait_for_calls("ping", 2).await;
        assert_eq!(redis.channels().await, 1);
        service.app.open_gate();
        assert_one_answer(calls).await;
    })
    .await;
}

/// The same where nothing says that it is broken: somebody asks the connection for a sign of life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_whose_connection_has_gone_silent_subscribe_anew() {
    in_time(async {
        let redis = RedisServer::start().await;
        let proxy = Proxy::start(redis.address()).await;
        let backend = RedisBackend::connect(&format!("redis://{}/", proxy.address))
            .await
            .expect("the server answers");
        let service = Service::start(backend, Router::new(), None).await;
        let order = Order::new("o").held();
        let calls = send(std::slice::from_ref(&service.client), "/orders/waiting-long", &order, 4);
        redis.wait_for_calls("pttl", 2).await;

        redis.reset().await;
        proxy.silence_connections();

        redis.wait_for_calls("subscribe", 1).await;
        // The connection for calls is silent, too, and is replaced when some have not been answered.
        until("calls are answered", async || {
            let other = service.client.order("other", &Order::new("other")).send().await;
            other.status == StatusCode::CREATED && !other.says_not_stored()
        })
        .await;
        service.app.open_gate();
        assert_one_answer(calls).await;
        assert_eq!(service.app.executions("o"), 1);
    })
    .await;
}
