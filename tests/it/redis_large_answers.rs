//! Large answers: recorded or given up once, whatever the line, and never at the expense of what is small (IDEM-12).

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::routing::post;
use axum::{Extension, Router};
use bytes::Bytes;
use futures_util::future::join_all;
use idem_axum::{RedisBackend, idempotent};
use idem_core::{
    Acquisition, Backend as _, Claim, ClaimPolicy, Completion, Fenced, Fingerprint, IdempotencyKey, Record, RecordKey,
    Scope,
};
use idem_tests::{Answer, App, Log, Proxy, RedisCluster, RedisServer, Service, in_time, until};
use redis::AsyncTypedCommands as _;
use reqwest::Method;

/// How large the answer of `/large` is.
#[derive(Clone, Copy)]
struct Size(usize);

#[idempotent(ttl = "24h", scope = global, lease = "3s", max_response = "64MiB")]
async fn large(Extension(Size(size)): Extension<Size>) -> Bytes {
    noise(size)
}

#[idempotent(ttl = "24h", scope = global, in_flight = "wait", wait = "50s", max_response = "64MiB")]
async fn waited_for(Extension(Size(size)): Extension<Size>) -> Bytes {
    noise(size)
}

#[idempotent(ttl = "24h", scope = global)]
async fn small() -> (StatusCode, &'static str) {
    (StatusCode::CREATED, "twenty bytes or less")
}

/// Bytes that nothing compresses, at most 16 MiB.
fn noise(size: usize) -> Bytes {
    static NOISE: LazyLock<Bytes> = LazyLock::new(|| {
        let mut seed = 1_u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed.to_be_bytes()
        };
        (0..2 * MEBIBYTE).flat_map(|_| next()).collect()
    });
    NOISE.slice(..size)
}

const MEBIBYTE: usize = 1 << 20;

async fn service(backend: RedisBackend, size: usize) -> Service {
    let routes: Router<App> = Router::new()
        .route("/large", post(large))
        .route("/waited-for", post(waited_for))
        .route("/small", post(small))
        .layer(Extension(Size(size)));
    Service::start(backend, routes, None).await
}

/// A service whose line to Redis is slowed down by `latency` for each 16 KiB.
async fn behind_a_slow_line(size: usize, latency: Duration) -> (Service, RedisServer, Proxy) {
    let server = RedisServer::start().await;
    let proxy = Proxy::start(server.address()).await;
    let backend = RedisBackend::connect(&format!("redis://{}/", proxy.address)).await;
    let service = service(backend.expect("it answers"), size).await;
    proxy.slow_down(latency);
    (service, server, proxy)
}

async fn send(service: &Service, path: &str, key: &str) -> Answer {
    service.client.call(Method::POST, path).key(key).send().await
}

/// Sends small requests until `done`, and says how many failed of how many.
async fn small_ones(service: &Service, client: usize, done: &tokio::sync::watch::Receiver<bool>) -> (usize, usize) {
    let (mut failed, mut sent) = (0, 0);
    while !*done.borrow() {
        let answer = send(service, "/small", &format!("{client}-{sent}")).await;
        sent += 1;
        failed += usize::from(answer.status != StatusCode::CREATED);
    }
    (failed, sent)
}

/// About 4 MB a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_on_a_slow_line_is_recorded_and_replayed_and_disturbs_nobody() {
    in_time(async {
        let size = 12 * MEBIBYTE;
        let (service, _server, proxy) = behind_a_slow_line(size, Duration::from_millis(3)).await;
        let (done, is_done) = tokio::sync::watch::channel(false);
        let others = join_all((0..10).map(|client| small_ones(&service, client, &is_done)));
        let large = async {
            let first = send(&service, "/large", "k").await;
            assert_eq!((first.status, first.body.len()), (StatusCode::OK, size));
            assert!(first.says_not_stored(), "its client does not wait for the line");
            until("it is recorded", async || {
                send(&service, "/large", "k").await.status != StatusCode::CONFLICT
            })
            .await;
            for _ in 0..2 {
                let again = send(&service, "/large", "k").await;
                assert!(again.is_replay(), "{:?}", again.status);
                assert_eq!(again.body, first.body);
            }
            done.send_replace(true);
        };
        let (seen, ()) = tokio::join!(others, large);
        assert_eq!(seen.iter().map(|(failed, _)| failed).sum::<usize>(), 0, "{seen:?}");
        // Once, beside what the small ones took.
        assert!(
            proxy.bytes_to_server() < 3 * size as u64 / 2,
            "{}",
            proxy.bytes_to_server()
        );
    })
    .await;
}

/// About 160 kB a second, where a megabyte has two seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_that_does_not_come_through_is_given_up_once_and_never_runs_again() {
    in_time(async {
        let (service, _server, proxy) = behind_a_slow_line(MEBIBYTE, Duration::from_millis(100)).await;
        let first = send(&service, "/large", "k").await;
        assert_eq!((first.status, first.body.len()), (StatusCode::OK, MEBIBYTE));
        assert!(first.says_not_stored());
        service.idempotency.drain().await;
        let again = send(&service, "/large", "k").await;
        assert_eq!(again.problem(), "response-not-stored");
        proxy.slow_down(Duration::ZERO);
        assert_eq!(send(&service, "/large", "k").await.problem(), "response-not-stored");
        let sent = proxy.bytes_to_server();
        assert!(sent < 3 * MEBIBYTE as u64 / 2, "it was sent again: {sent}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_cut_while_a_large_answer_is_on_its_way_costs_nothing() {
    in_time(async {
        let (service, _server, proxy) = behind_a_slow_line(4 * MEBIBYTE, Duration::from_millis(3)).await;
        let asked = tokio::spawn(service.client.call(Method::POST, "/large").key("k").send());
        until("it is on its way", async || proxy.bytes_to_server() > MEBIBYTE as u64).await;
        proxy.cut_connections();
        let first = asked.await.expect("no panic");
        service.idempotency.drain().await;
        let again = send(&service, "/large", "k").await;
        assert!(again.is_replay(), "{:?}", again.status);
        assert_eq!(again.body, first.body);
    })
    .await;
}

/// The lease is three seconds, and the answer is on its way for longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_claim_is_held_while_a_large_answer_is_on_its_way() {
    in_time(async {
        let (service, _server, _proxy) = behind_a_slow_line(14 * MEBIBYTE, Duration::from_millis(4)).await;
        let asked = Instant::now();
        let first = send(&service, "/large", "k").await;
        until("it is recorded", async || {
            let again = send(&service, "/large", "k").await;
            assert!(
                again.status == StatusCode::CONFLICT || again.is_replay(),
                "{:?}",
                again.status
            );
            again.is_replay()
        })
        .await;
        assert!(asked.elapsed() > Duration::from_secs(3), "the line was fast");
        assert_eq!(send(&service, "/large", "k").await.body, first.body);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_want_a_large_answer_share_it() {
    in_time(async {
        let size = 4 * MEBIBYTE;
        let (service, _server, proxy) = behind_a_slow_line(size, Duration::ZERO).await;
        let first = send(&service, "/waited-for", "k").await;
        assert!(!first.says_not_stored());
        proxy.slow_down(Duration::from_millis(3));
        let before = proxy.bytes_to_clients();
        for again in join_all((0..20).map(|_| send(&service, "/waited-for", "k"))).await {
            assert!(again.is_replay(), "{:?}", again.status);
            assert_eq!(again.body, first.body);
        }
        let read = proxy.bytes_to_clients() - before;
        assert!(read < 3 * size as u64, "{read}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_of_a_cluster_lies_beside_its_record() {
    in_time(async {
        let cluster = RedisCluster::start().await;
        let backend = RedisBackend::connect(&cluster.url()).await.expect("it answers");
        let service = service(backend, MEBIBYTE).await;
        for number in 0..6 {
            let key = format!("k{number}");
            let first = send(&service, "/large", &key).await;
            assert!(!first.says_not_stored());
            send(&service, "/large", &key).await.assert_replays(&first);
        }
    })
    .await;
}

/// What has happened is recorded, however large and however full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_still_records_a_large_answer() {
    let server = RedisServer::start().await;
    let backend = RedisBackend::connect(&server.url()).await.expect("it answers");
    let (key, claim) = claimed(&backend).await;
    server.set("maxmemory-policy", "noeviction").await;
    server.set("maxmemory", "1").await;
    let completed = backend
        .complete(&key, &claim, &answer(), claim.ttl)
        .await
        .expect("completed");
    assert_eq!(completed, Fenced::Applied);
    server.set("maxmemory", "0").await;
    assert_eq!(read(&backend, &key).await, answer());
}

/// What an owner leaves behind goes by itself; and what is completed is as long there as its record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bytes_of_a_large_answer_live_as_long_as_its_record_and_no_longer() {
    let server = RedisServer::start().await;
    let backend = RedisBackend::connect(&server.url()).await.expect("it answers");
    let (key, claim) = claimed(&backend).await;
    for _ in 0..2 {
        let completed = backend
            .complete(&key, &claim, &answer(), claim.ttl)
            .await
            .expect("completed");
        assert_eq!(completed, Fenced::Applied);
    }
    let (_, superseded) = claim_of("k");
    let fenced = backend
        .complete(&key, &superseded, &answer(), superseded.ttl)
        .await
        .expect("an answer");
    assert_eq!(fenced, Fenced::Superseded);
    assert_eq!(read(&backend, &key).await, answer(), "the other owner's is untouched");
    let mut connection = server.connection().await;
    let mut lifetimes = Vec::new();
    for name in connection.keys("*").await.expect("KEYS") {
        let ttl = redis::cmd("PTTL").arg(&name).query_async::<u64>(&mut connection).await;
        lifetimes.push(ttl.expect("PTTL") / 60_000);
    }
    lifetimes.sort_unstable();
    // In minutes: what was left behind, the record, and its answer.
    assert_eq!(lifetimes, [0, 9, 10]);
}

/// It ran and completed, and will never be there again: as where somebody deletes what they do not know.
#[tokio::test]
async fn a_record_whose_large_answer_is_gone_says_not_stored_and_is_warned_of_once() {
    let (log, _logging) = Log::listen(tracing::Level::WARN);
    let server = RedisServer::start().await;
    let backend = RedisBackend::connect(&server.url()).await.expect("it answers");
    let service = service(backend, MEBIBYTE).await;
    let first = send(&service, "/large", "k").await;
    assert!(!first.says_not_stored());
    let mut connection = server.connection().await;
    for name in connection.keys("*:p:*").await.expect("KEYS") {
        connection.del(name).await.expect("DEL");
    }
    for _ in 0..3 {
        let again = send(&service, "/large", "k").await;
        assert_eq!(
            (again.status, again.problem().as_str()),
            (StatusCode::CONFLICT, "response-not-stored")
        );
    }
    assert_eq!(log.lines_with("is gone from Redis").len(), 1, "{}", log.text());
}

#[tokio::test]
async fn what_is_given_up_is_said_once_in_the_log() {
    let (log, _logging) = Log::listen(tracing::Level::WARN);
    in_time(async {
        let (service, _server, _proxy) = behind_a_slow_line(MEBIBYTE, Duration::from_millis(100)).await;
        send(&service, "/large", "k").await;
        service.idempotency.drain().await;
    })
    .await;
    assert_eq!(log.lines_with("max_response").len(), 1, "{}", log.text());
}

fn claim_of(name: &str) -> (RecordKey, Claim) {
    let key = RecordKey::new("o", &Scope::global(), &IdempotencyKey::of(name)).expect("a key");
    (
        key,
        Claim::first(Fingerprint::NONE, &ClaimPolicy::new(Duration::from_mins(10))),
    )
}

async fn claimed(backend: &RedisBackend) -> (RecordKey, Claim) {
    let (key, claim) = claim_of("k");
    let acquired = backend.claim(&key, &claim).await.expect("claimed");
    assert_eq!(acquired, Acquisition::Acquired);
    (key, claim)
}

fn answer() -> Completion {
    Completion::Stored(noise(MEBIBYTE))
}

async fn read(backend: &RedisBackend, key: &RecordKey) -> Completion {
    match backend.claim(key, &claim_of("k").1).await {
        Ok(Acquisition::Existing(Record::Completed { completion, .. })) => completion,
        other => panic!("no completed record: {other:?}"),
    }
}
