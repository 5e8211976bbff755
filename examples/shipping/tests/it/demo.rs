//! The demo, which checks itself.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use idem_tests::RedisServer;

use crate::process::{Ended, LIMIT, Process};

/// Above the half second after which its client gives up, with room for a busy machine.
const DELAY: (&str, &str) = ("SHIPPING_DELAY_MS", "1500");

#[track_caller]
fn assert_comes_out_as_told(ended: &Ended) {
    assert!(ended.status.success(), "{ended:#?}");
    let verdict: Vec<&str> = ended.stdout.lines().rev().take(2).collect();
    assert_eq!(
        verdict,
        [
            "idempotent  4 orders, 4 rows: every order shipped once",
            "naive       2 orders, 4 rows: a retry ships again",
        ]
    );
    assert!(!ended.stdout.contains('\x1b'), "colours are for terminals");
}

/// The processes named on the lines that begin with `label`.
fn processes<'a>(ended: &'a Ended, label: &str) -> Vec<&'a str> {
    let lines = ended.stdout.lines().filter(|line| line.trim_start().starts_with(label));
    let named = |line: &'a str| Some(line.split_once("(process ")?.1.split_once(',')?.0);
    lines.filter_map(named).collect()
}

#[test]
fn the_demo_comes_out_as_told() {
    let ended = Process::start(&["demo"], &[DELAY]).ended();

    assert_comes_out_as_told(&ended);
    let told = [
        "records in SQLite",
        "no answer: process",
        "0  nothing was committed before the kill",
    ];
    assert!(told.iter().all(|part| ended.stdout.contains(part)), "{ended:#?}");
    assert_eq!(processes(&ended, "duplicate"), processes(&ended, "first call"));
}

#[tokio::test]
async fn the_demo_comes_out_as_told_over_two_processes() {
    let redis = RedisServer::start().await;

    let ended = Process::start(&["demo"], &[DELAY, ("REDIS_URL", &redis.url())]).ended();

    assert_comes_out_as_told(&ended);
    let (first, duplicate) = (processes(&ended, "first call"), processes(&ended, "duplicate"));
    assert_eq!((first.len(), duplicate.len()), (2, 2), "{ended:#?}");
    assert!(first.iter().all(|process| !duplicate.contains(process)), "{ended:#?}");
    let told = "1  written before the kill; its answer is not recorded";
    assert!(ended.stdout.contains(told), "{ended:#?}");
}

#[tokio::test]
async fn the_second_process_ends_when_the_demo_is_killed() {
    let redis = RedisServer::start().await;
    let mut demo = Process::start(&["demo"], &[DELAY, ("REDIS_URL", &redis.url())]);
    let cast = demo.wait_for_line("duplicates to process");
    let (_, addr) = cast.rsplit_once("http://").expect("an address");
    TcpStream::connect(addr).expect("it listens");

    drop(demo);

    let limit = Instant::now() + LIMIT;
    while TcpStream::connect(addr).is_ok() {
        assert!(Instant::now() < limit, "the second process goes on");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_delay_that_a_client_would_not_notice_or_a_duplicate_would_not_wait_for_is_refused() {
    for delay in ["500", "30001"] {
        let ended = Process::start(&["demo"], &[("SHIPPING_DELAY_MS", delay)]).ended();

        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.stderr.contains("SHIPPING_DELAY_MS"), "{ended:#?}");
    }
}
