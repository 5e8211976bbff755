//! The contract of `docs/http.md` as tables of cases, each with its source, over real sockets: on every backend, over both
//! versions of HTTP.
//!
//! Owns how a case is played. All cases of one backend and version share one service, and all that fail are reported
//! together by name. `cargo test -p idem-tests --test it contract -- --nocapture` lists them.

mod case;
mod expiry;
mod foretold;
mod forms;
mod in_flight;
mod keys;
mod malformed_keys;
mod methods;
mod mismatches;
mod player;
mod problems;
mod replays;
mod scopes;
mod stage;
mod statuses;
mod verdicts;
mod wire;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use idem_axum::{Backend, MemoryBackend, RedisBackend};
use idem_tests::{Client, PostgresServer, RedisServer, SqliteFile, in_time};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::case::Case;
use self::forms::Form;
use self::player::Player;
use self::stage::Stage;
use self::wire::Wire;

/// How many cases are played at the same time.
const AT_ONCE: usize = 16;
/// How long one may take before it counts as hanging; far above what any takes.
const PATIENCE: Duration = Duration::from_secs(40);

fn tables() -> Vec<(&'static str, Vec<Case>)> {
    vec![
        (
            "keys",
            [keys::cases(), malformed_keys::cases()].into_iter().flatten().collect(),
        ),
        (
            "replay",
            [replays::cases(), in_flight::cases()].into_iter().flatten().collect(),
        ),
        ("mismatch", mismatches::cases()),
        ("statuses", statuses::cases()),
        ("verdicts", verdicts::cases()),
        ("methods", methods::cases()),
        ("scope", scopes::cases()),
        ("expiry", expiry::cases()),
        ("problems", problems::cases()),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum Version {
    Http1,
    Http2,
}

/// Plays every case, and fails with the names of all that fail.
async fn play_all(form: Form, backend: impl Backend, redis: Option<RedisServer>, version: Version) {
    let stage = Stage::default();
    let service = stage::serve(form, backend, redis, stage.clone()).await;
    let wire = match version {
        Version::Http1 => Wire::Http1(service.address),
        Version::Http2 => Wire::Http2(Client::http2(&format!("http://{}", service.address))),
    };
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut playing = JoinSet::new();
    for (table, case) in tables()
        .into_iter()
        .flat_map(|(table, cases)| cases.into_iter().map(move |case| (table, case)))
    {
        let name = format!("{table}: {} ({})", case.name, case.source);
        if let (Version::Http2, Some(why)) = (version, case.only_http1) {
            println!("left out, as HTTP/2 has {why}: {name}");
            continue;
        }
        if let Some(why) = only_by_attribute(&case).filter(|_| form == Form::Layer) {
            println!("left out, as {why}: {name}");
            continue;
        }
        let scene = stage.set(case.name, case.made.clone(), case.holds());
        let player = Player::new(wire.clone(), scene, &service, form);
        let permits = permits.clone();
        playing.spawn(async move {
            let _permit = permits.acquire_owned().await.expect("it is never closed");
            let task = tokio::spawn(async move { tokio::time::timeout(PATIENCE, player.play(&case)).await });
            let failure = match task.await {
                Ok(Ok(foretold)) => Ok(foretold),
                Ok(Err(_elapsed)) => Err("it hangs".to_owned()),
                Err(panic) => Err(message(panic)),
            };
            (name, failure)
        });
    }
    let mut failures = BTreeSet::new();
    let mut foretold = 0;
    while let Some(played) = playing.join_next().await {
        match played.expect("a player's panic is caught") {
            (name, Ok(answers)) => {
                foretold += answers;
                println!("ok: {name}");
            }
            (name, Err(failure)) => drop(failures.insert(format!("{name}: {failure}"))),
        }
    }
    println!("{foretold} answers were foretold");
    let failures: Vec<_> = failures.into_iter().collect();
    assert!(
        failures.is_empty(),
        "{} cases fail:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// The routes and cases that the layer form does not have, and why. `docs/layers.md` has the same table.
const ONLY_BY_ATTRIBUTE: [(&str, &str); 11] = [
    ("/uncompared", "a layer compares method, path and query in any case"),
    ("/json", "extractors inside of a layer run after the claim"),
    ("/text", "extractors inside of a layer run after the claim"),
    ("/natural", "a layer has no arguments to make a key of"),
    ("/by-value", "a layer has no arguments to compare"),
    ("/by-parts", "a layer has no arguments to compare"),
    ("/deployed", "a layer has no arguments to compare"),
    ("/in-pair", "a layer's scope is one value"),
    ("/nested", "a layer's scope is one value"),
    ("/limited", "a layer has a body limit of its own"),
    ("/unlayered", "it has neither"),
];

fn only_by_attribute(case: &Case) -> Option<&'static str> {
    let mut paths = case
        .script
        .iter()
        .filter_map(|step| step.request())
        .map(|request| request.path);
    paths.find_map(|path| {
        let path = path.split(['?']).next().unwrap_or_default();
        ONLY_BY_ATTRIBUTE
            .iter()
            .find(|(route, _)| *route == path)
            .map(|(_, why)| *why)
    })
}

fn message(panic: tokio::task::JoinError) -> String {
    let panic = panic.into_panic();
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

async fn on_redis(form: Form, version: Version) {
    let server = RedisServer::start().await;
    let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
    play_all(form, backend, Some(server), version).await;
}

async fn on_postgres(form: Form, version: Version) {
    let server = PostgresServer::shared().await;
    let (backend, _schema) = server.backend().await;
    play_all(form, backend, None, version).await;
}

async fn on_sqlite(form: Form, version: Version) {
    let file = SqliteFile::create().await;
    play_all(form, file.backend().await, None, version).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_holds_in_memory_over_http_1() {
    in_time(play_all(Form::Attribute, MemoryBackend::new(), None, Version::Http1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_holds_in_memory_over_http_2() {
    in_time(play_all(Form::Attribute, MemoryBackend::new(), None, Version::Http2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_holds_on_redis_over_http_1() {
    in_time(on_redis(Form::Attribute, Version::Http1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_holds_on_redis_over_http_2() {
    in_time(on_redis(Form::Attribute, Version::Http2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_holds_on_postgres_over_http_1() {
    in_time(on_postgres(Form::Attribute, Version::Http1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_holds_on_postgres_over_http_2() {
    in_time(on_postgres(Form::Attribute, Version::Http2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_holds_in_memory_over_http_1_by_the_layer() {
    in_time(play_all(Form::Layer, MemoryBackend::new(), None, Version::Http1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_holds_in_memory_over_http_2_by_the_layer() {
    in_time(play_all(Form::Layer, MemoryBackend::new(), None, Version::Http2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_holds_on_redis_over_http_1_by_the_layer() {
    in_time(on_redis(Form::Layer, Version::Http1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_holds_on_redis_over_http_2_by_the_layer() {
    in_time(on_redis(Form::Layer, Version::Http2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_holds_on_postgres_over_http_1_by_the_layer() {
    in_time(on_postgres(Form::Layer, Version::Http1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_holds_on_postgres_over_http_2_by_the_layer() {
    in_time(on_postgres(Form::Layer, Version::Http2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_holds_on_sqlite_over_http_1() {
    in_time(on_sqlite(Form::Attribute, Version::Http1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_holds_on_sqlite_over_http_2() {
    in_time(on_sqlite(Form::Attribute, Version::Http2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_holds_on_sqlite_over_http_1_by_the_layer() {
    in_time(on_sqlite(Form::Layer, Version::Http1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_holds_on_sqlite_over_http_2_by_the_layer() {
    in_time(on_sqlite(Form::Layer, Version::Http2)).await;
}
