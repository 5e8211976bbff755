//! IDEM-1, IDEM-2, IDEM-4: many equal requests, one execution, one answer.

use std::time::Duration;

use axum::http::StatusCode;
use idem_tests::{Answer, Client, Order, PostgresServer, Process, RedisServer, Service, on_every_backend};
use tokio::task::JoinSet;

on_every_backend! {
    a_hundred_concurrent_duplicates_execute_once_and_all_retries_replay
    a_key_is_its_own_on_each_operation
    an_answer_expires_and_its_key_is_free_again
}

const CONCURRENT: usize = 100;

/// Sends `CONCURRENT` equal requests, the first held by its gate, to the clients in turn. Checks that all but one are
/// refused while it is held, and returns the one answer that comes after `open_gates`.
async fn race(clients: &[Client], order: &Order, open_gates: impl AsyncFnOnce()) -> Answer {
    let mut calls = JoinSet::new();
    for client in clients.iter().cycle().take(CONCURRENT) {
        calls.spawn(client.order("race", order).send());
    }
    for _ in 1..CONCURRENT {
        let refused = calls.join_next().await.expect("a call is left").expect("no panic");
        assert_eq!(refused.status, StatusCode::CONFLICT, "{refused:?}");
        assert_eq!(refused.problem(), "in-flight");
        let seconds = refused.headers.get("retry-after").and_then(|value| value.to_str().ok());
        assert!(seconds.is_some_and(|seconds| seconds.parse::<u64>().is_ok_and(|seconds| seconds > 0)));
    }
    open_gates().await;
    calls.join_next().await.expect("a call is left").expect("no panic")
}

async fn assert_all_replay(clients: &[Client], order: &Order, first: &Answer) {
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    let mut retries = JoinSet::new();
    for client in clients.iter().cycle().take(CONCURRENT) {
        retries.spawn(client.order("race", order).send());
    }
    while let Some(retry) = retries.join_next().await {
        retry.expect("no panic").assert_replays(first);
    }
}

async fn a_hundred_concurrent_duplicates_execute_once_and_all_retries_replay(service: Service) {
    let clients = [service.client.clone()];
    let order = Order::new("o").held();

    let first = race(&clients, &order, async || {
        // The handler takes 200 ms and more; nothing below depends on it.
        tokio::time::sleep(Duration::from_millis(200)).await;
        service.app.open_gate();
    })
    .await;

    assert_all_replay(&clients, &order, &first).await;
    assert_eq!(service.app.executions("o"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_on_one_redis_execute_once_between_them() {
    let redis = RedisServer::start().await;
    execute_once_between_two_processes(&redis.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_on_one_postgres_execute_once_between_them() {
    let postgres = PostgresServer::start().await;
    execute_once_between_two_processes(&postgres.url()).await;
}

async fn execute_once_between_two_processes(url: &str) {
    let processes = [(); 2].map(|()| Process::start(env!("CARGO_BIN_EXE_server"), url));
    let clients = processes.each_ref().map(|process| process.client.clone());
    let order = Order::new("o").held();

    let first = race(&clients, &order, async || {
        for client in &clients {
            assert_eq!(
                client.call(reqwest::Method::POST, "/gate").send().await.status,
                StatusCode::OK
            );
        }
    })
    .await;

    assert_all_replay(&clients, &order, &first).await;
    let mut executions = 0;
    for client in &clients {
        let answer = client.call(reqwest::Method::GET, "/executions/o").send().await;
        executions += answer.json().as_u64().expect("a number");
    }
    assert_eq!(executions, 1);
}

async fn a_key_is_its_own_on_each_operation(service: Service) {
    let order = Order::new("o");
    let there = service.client.order("k", &order).send().await;
    let elsewhere = service.client.order_at("/orders/short-lease", "k", &order).send().await;
    assert!(!there.is_replay() && !elsewhere.is_replay());
    assert_eq!(service.app.executions("o"), 2);
}

async fn an_answer_expires_and_its_key_is_free_again(service: Service) {
    let order = Order::new("o");
    let before = std::time::Instant::now();
    let first = service.client.order_at("/orders/short-ttl", "k", &order).send().await;
    assert!(!first.is_replay());
    // Whenever the answer is gone, it must not have been before its second is over; replays do not prolong it.
    loop {
        let retry = service.client.order_at("/orders/short-ttl", "k", &order).send().await;
        if !retry.is_replay() {
            break;
        }
        assert!(before.elapsed() < Duration::from_secs(30), "it never expires");
    }
    assert!(before.elapsed() >= Duration::from_millis(998), "{:?}", before.elapsed());
    assert_eq!(service.app.executions("o"), 2);
}
