//! Short rounds of the fault lab (`idem_tests::lab`) on each server; `cargo xtask lab` runs more of it.

use std::path::Path;
use std::time::Duration;

use idem_tests::lab::{self, Backend, Size};
use tokio::sync::Mutex;

/// The load of one round is as much as debug builds on a few cores can answer.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const SIZE: Size = Size {
    keys: 240,
    span: Duration::from_secs(5),
};

/// The seed that is given in `IDEM_SEED`, or this one.
fn seed_or(seed: u64) -> u64 {
    let given = std::env::var("IDEM_SEED");
    given.map_or(seed, |given| given.parse().expect("a number"))
}

/// Plays the round of a seed; `IDEM_SEED` puts another one in its place.
async fn play(backend: Backend, seed: u64) {
    let _turn = ONE_AT_A_TIME.lock().await;
    let seed = seed_or(seed);
    let totals = lab::round(Path::new(env!("CARGO_BIN_EXE_server")), backend, seed, SIZE).await;
    println!("{totals}");
    assert!(
        totals.violations.is_empty(),
        "{}\nreplay: IDEM_SEED={seed} cargo test -p idem-tests --test it lab",
        totals.violations.join("\n")
    );
    assert!(totals.executed_again() > 0, "nothing happened that could go wrong");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_consumed_once_whatever_the_queue_does() {
    const MESSAGES: Size = Size {
        keys: 56,
        span: Duration::from_millis(1_500),
    };
    let _turn = ONE_AT_A_TIME.lock().await;
    let seed = seed_or(3);
    let server = Path::new(env!("CARGO_BIN_EXE_server"));
    let totals = lab::broker::round(server, Backend::Redis, seed, MESSAGES).await;
    println!("{totals}");
    assert!(
        totals.violations.is_empty(),
        "{}\nreplay: IDEM_SEED={seed} cargo test -p idem-tests --test it lab::messages",
        totals.violations.join("\n")
    );
    assert!(totals.executed_again() > 0, "nothing happened that could go wrong");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_rule_is_broken_where_redis_keeps_its_records() {
    play(Backend::Redis, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_rule_is_broken_where_redis_loses_its_records_but_those_that_need_them() {
    play(Backend::Redis, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_rule_is_broken_where_a_cluster_keeps_its_records() {
    play(Backend::Cluster, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_rule_is_broken_where_a_cluster_loses_records_but_those_that_need_them() {
    play(Backend::Cluster, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_rule_is_broken_where_postgres_keeps_its_records() {
    play(Backend::Postgres, 36).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_rule_is_broken_where_postgres_loses_its_records_but_those_that_need_them() {
    play(Backend::Postgres, 23).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_rule_is_broken_where_a_file_of_sqlite_keeps_its_records() {
    play(Backend::Sqlite, 832).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_rule_is_broken_where_a_file_of_sqlite_loses_its_records_but_those_that_need_them() {
    play(Backend::Sqlite, 599).await;
}
