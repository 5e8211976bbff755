//! IDEM-21 and IDEM-22 on real servers: what many requests, and failures, cost. Commands, connections, processes and bytes
//! are counted, and no times.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use idem_axum::RedisBackend;
use idem_core::{
    Acquisition, Backend, BackendErrorKind, Claim, ClaimPolicy, ClaimResult, Completion, Duplicate, Engine, Fenced,
    Fingerprint, IdempotencyKey, RecordKey, Scope,
};
use idem_tests::{PostgresServer, RedisServer, in_time, until};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

const MEBIBYTE: usize = 1 << 20;
const REQUEST: Fingerprint = Fingerprint::new(1, [1; 32]);
const POLICY: ClaimPolicy = ClaimPolicy::new(Duration::from_mins(10)).with_wait(Duration::from_secs(50));
const IMPATIENT: ClaimPolicy = ClaimPolicy::new(Duration::from_mins(10));

fn record_key(key: &str) -> RecordKey {
    RecordKey::new("o", &Scope::global(), &IdempotencyKey::of(key)).expect("a valid key")
}

async fn acquire(backend: &impl Backend, key: &str) -> Claim {
    let claim = Claim::first(REQUEST, &POLICY);
    let acquired = backend.claim(&record_key(key), &claim).await;
    assert_eq!(acquired.expect("a healthy server"), Acquisition::Acquired);
    claim
}

async fn complete(backend: &impl Backend, key: &str, claim: &Claim, payload: Bytes) {
    let completed = backend
        .complete(&record_key(key), claim, &Completion::Stored(payload), claim.ttl)
        .await;
    assert_eq!(completed.expect("a healthy server"), Fenced::Applied);
}

/// So many waiters of one answer, which comes; says whether all have got it, in one and the same place of memory.
async fn all_wait_for_one_answer(backend: impl Backend + Clone, waiters: usize, wait: impl AsyncFn()) {
    let claim = acquire(&backend, "k").await;
    let engine = Engine::new(backend.clone());
    let waiting: Vec<_> = (0..waiters)
        .map(|_| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.claim(&record_key("k"), REQUEST, &POLICY).await })
        })
        .collect();
    wait().await;
    let payload = Bytes::from(vec![7; MEBIBYTE]);
    complete(&backend, "k", &claim, payload.clone()).await;
    let mut places = Vec::new();
    for waiter in join_all(waiting).await {
        match waiter.expect("no panic") {
            Ok(ClaimResult::Duplicate {
                duplicate: Duplicate::Replay(bytes),
                ..
            }) => {
                if !places.contains(&bytes.as_ptr()) {
                    assert_eq!(bytes, payload);
                    places.push(bytes.as_ptr());
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(places.len() <= 32, "{} copies", places.len());
}

async fn called(redis: &RedisServer, command: &str) -> u64 {
    let commands = redis.commands().await;
    commands
        .iter()
        .find(|(name, _)| name == command)
        .map_or(0, |(_, calls)| *calls)
}

/// How often a command was refused before it was carried out.
async fn refused(redis: &RedisServer, command: &str) -> u64 {
    let mut info = redis::cmd("INFO");
    let text: redis::RedisResult<String> = info
        .arg("commandstats")
        .query_async(&mut redis.connection().await)
        .await;
    let text = text.expect("INFO is allowed");
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(':'));
    let Some((_, stats)) = lines.find(|(name, _)| *name == command) else {
        return 0;
    };
    let mut stats = stats.split(',').filter_map(|stat| stat.trim().split_once('='));
    let calls = stats
        .find(|(name, _)| *name == "rejected_calls")
        .expect("it is counted");
    calls.1.parse().expect("a number")
}

/// A number of `INFO`.
async fn info(redis: &RedisServer, name: &str) -> u64 {
    let text = redis.info().await;
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(known, _)| *known == name);
    found.expect("it is there").1.trim().parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idem_21_ten_thousand_waiters_of_a_large_answer_on_redis_read_it_a_few_times() {
    in_time(async {
        let redis = RedisServer::start().await;
        let backend = RedisBackend::connect(&redis.url()).await.expect("it answers");
        let before = info(&redis, "total_net_output_bytes").await;
        all_wait_for_one_answer(backend, 10_000, async || redis.wait_for_calls("pttl", 2).await).await;
        let moved = info(&redis, "total_net_output_bytes").await - before;
        assert!(
            moved < 40 * MEBIBYTE as u64,
            "{moved} bytes for one answer of a megabyte"
        );
        let peak = info(&redis, "used_memory_peak").await;
        assert!(peak < 64 * MEBIBYTE as u64, "{peak} bytes");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idem_21_ten_thousand_waiters_of_a_large_answer_on_postgres_read_it_a_few_times() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (backend, schema) = server.backend().await;
        let somebody_waits = async || {
            until("somebody waits", async || server.waited_for(&schema).await > 0).await;
        };
        all_wait_for_one_answer(backend, 10_000, somebody_waits).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idem_21_a_request_that_is_given_up_moves_no_large_answer() {
    in_time(async {
        let redis = RedisServer::start().await;
        let backend = RedisBackend::connect(&redis.url()).await.expect("it answers");
        let claim = acquire(&backend, "k").await;
        complete(&backend, "k", &claim, Bytes::from(vec![7; 60 * 1024])).await;
        let engine = Engine::new(backend);
        redis.reset().await;
        let before = info(&redis, "total_net_output_bytes").await;
        for _ in 0..100 {
            let engine = engine.clone();
            let request = tokio::spawn(async move { engine.claim(&record_key("k"), REQUEST, &POLICY).await });
            tokio::task::yield_now().await;
            request.abort();
        }
        engine.drain().await;
        assert!(called(&redis, "set").await <= 100);
        assert!(
            called(&redis, "evalsha").await <= 200,
            "two releases a claim that may have been written"
        );
        let moved = info(&redis, "total_net_output_bytes").await - before;
        assert!(moved < 100 * 70 * 1024, "{moved} bytes: a release reads no answer");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idem_22_a_claim_that_a_full_server_refuses_is_one_command() {
    in_time(async {
        let redis = RedisServer::start().await;
        let engine = Engine::new(RedisBackend::connect(&redis.url()).await.expect("it answers"));
        redis.set("maxmemory", "1").await;
        redis.reset().await;
        for number in 0..50 {
            let refused = engine
                .claim(&record_key(&number.to_string()), REQUEST, &IMPATIENT)
                .await;
            let error = refused.expect_err("the server is full");
            assert_eq!(error.kind(), BackendErrorKind::Unavailable);
            assert!(error.is_not_written(), "{error:?}");
        }
        engine.drain().await;
        assert_eq!(refused(&redis, "set").await, 50);
        assert_eq!((called(&redis, "set").await, called(&redis, "evalsha").await), (0, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idem_22_a_waiter_on_a_server_that_takes_no_writes_opens_few_connections() {
    in_time(async {
        let redis = RedisServer::start().await;
        let backend = RedisBackend::connect(&redis.url()).await.expect("it answers");
        let claim = acquire(&backend, "k").await;
        let engine = Engine::new(backend.clone());
        let waiting = tokio::spawn(async move { engine.claim(&record_key("k"), REQUEST, &POLICY).await });
        redis.wait_for_calls("pttl", 2).await;
        redis.set("min-replicas-to-write", "1").await;
        // What waits is told again and again, and finds that it cannot look.
        let channel = format!("PUBLISH idem:{{{}}}:c .", record_key("k"));
        redis.reset().await;
        let connections = info(&redis, "total_connections_received").await;
        let mut own = 0;
        for _ in 0..40 {
            redis.tell(&channel).await;
            own += 1;
            sleep(Duration::from_millis(100)).await;
        }
        let opened = info(&redis, "total_connections_received").await - connections - own;
        assert!(opened <= 20, "{opened} connections in four seconds");
        let looks = refused(&redis, "set").await;
        assert!(looks <= 10, "{looks} looks in four seconds");
        redis.set("min-replicas-to-write", "0").await;
        complete(&backend, "k", &claim, Bytes::from_static(b"done")).await;
        let waited = waiting.await.expect("no panic").expect("it is there");
        assert!(
            matches!(
                waited,
                ClaimResult::Duplicate {
                    duplicate: Duplicate::Replay(_),
                    ..
                }
            ),
            "{waited:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idem_22_a_fresh_server_is_told_each_script_a_few_times_whoever_needs_it() {
    in_time(async {
        let redis = RedisServer::start().await;
        let backend = RedisBackend::connect(&redis.url()).await.expect("it answers");
        let keys: Vec<_> = (0..300).map(|number| number.to_string()).collect();
        let claims = join_all(keys.iter().map(|key| acquire(&backend, key))).await;
        redis.tell("SCRIPT FLUSH").await;
        redis.reset().await;
        let renewals = keys.iter().zip(&claims).map(|(key, claim)| {
            let backend = &backend;
            async move { backend.renew(&record_key(key), claim).await }
        });
        for renewed in join_all(renewals).await {
            assert_eq!(renewed.expect("a healthy server"), Fenced::Applied);
        }
        let loads = called(&redis, "script|load").await;
        assert!((1..=10).contains(&loads), "{loads} times for 300 renewals");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idem_22_a_locked_table_does_not_fill_the_server_with_processes() {
    in_time(async {
        let server = PostgresServer::start().await;
        let (backend, schema) = server.backend().await;
        let backend = backend.with_connections(4);
        let engine = Engine::new(backend.clone()).with_deadline(Duration::from_millis(500));
        acquire(&backend, "before").await;
        let lock = server
            .hold(&format!("LOCK TABLE {schema}.idem_records IN ACCESS EXCLUSIVE MODE"))
            .await;
        for round in 0..8 {
            let keys: Vec<_> = (0..8).map(|number| record_key(&format!("{round}-{number}"))).collect();
            let claims = join_all(keys.iter().map(|key| engine.claim(key, REQUEST, &IMPATIENT))).await;
            assert!(claims.iter().all(Result::is_err), "the table is locked");
            let waiting: i64 = server
                .query("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
                .await;
            assert!(waiting <= 4, "{waiting} processes wait for the table");
        }
        drop(lock);
        until("a claim is made", async || {
            engine.claim(&record_key("after"), REQUEST, &IMPATIENT).await.is_ok()
        })
        .await;
    })
    .await;
}

/// A name that leads to another server from now on; connections that are open stay where they are.
async fn name_that_moves(first: SocketAddr) -> (SocketAddr, Arc<Mutex<SocketAddr>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let name = listener.local_addr().expect("it is bound");
    let target = Arc::new(Mutex::new(first));
    let leads_to = target.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let target = *leads_to.lock().expect("no panic");
            tokio::spawn(async move {
                let mut server = TcpStream::connect(target).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    (name, target)
}

/// The old primary stays, as a replica that answers and keeps its connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_has_become_a_replica_is_left_though_its_connection_lasts() {
    in_time(async {
        let (old, new) = (RedisServer::start().await, RedisServer::start().await);
        let (name, target) = name_that_moves(old.address()).await;
        let url = format!("redis://{name}/");
        let engine = Engine::new(RedisBackend::connect(&url).await.expect("it answers"));
        let before = engine.claim(&record_key("before"), REQUEST, &IMPATIENT).await;
        assert!(matches!(before, Ok(ClaimResult::Run(_))), "{before:?}");
        *target.lock().expect("no panic") = new.address();
        old.tell(&format!("REPLICAOF 127.0.0.1 {}", new.address().port())).await;
        until("a claim is made on the new primary", async || {
            let claimed = engine.claim(&record_key("after"), REQUEST, &IMPATIENT).await;
            matches!(claimed, Ok(ClaimResult::Run(_)))
        })
        .await;
    })
    .await;
}
