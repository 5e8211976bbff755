//! Durable steps on Redis: what they cost, how long they stay, and what the Redis user needs for them.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use idem_axum::{RedisBackend, StepError, Steps, idempotent};
use idem_core::steps::StepBackend as _;
use idem_core::{
    Acquisition, Backend as _, BackendErrorKind, Claim, ClaimPolicy, Completion, Fenced, Fingerprint, IdempotencyKey,
    LARGE_PAYLOAD, Record, RecordKey, Scope,
};
use idem_tests::{App, Order, RedisCluster, RedisServer, Service, Tenant, in_time};

#[idempotent(ttl = "24h", scope = tenant)]
async fn none_asked(tenant: Tenant, steps: Steps, Json(order): Json<Order>) -> StatusCode {
    drop((steps, order));
    StatusCode::CREATED
}

#[idempotent(ttl = "24h", scope = tenant)]
async fn two(tenant: Tenant, steps: Steps, Json(order): Json<Order>) -> Result<StatusCode, Response> {
    let failed = |error: StepError| error.into_response();
    for name in ["one", "two"] {
        let done = steps.run(name, async |_| Ok::<_, StepError>(())).of(&order.order).await;
        done.map_err(failed)?;
    }
    Ok(StatusCode::CREATED)
}

#[idempotent(ttl = "24h", scope = tenant)]
async fn at_most_once(tenant: Tenant, steps: Steps, Json(order): Json<Order>) -> Result<StatusCode, Response> {
    let run = steps.run("one", async |_| Ok::<_, StepError>(())).of(&order.order);
    run.at_most_once().await.map_err(IntoResponse::into_response)?;
    Ok(StatusCode::CREATED)
}

fn routes() -> Router<App> {
    Router::new()
        .route("/none", post(none_asked))
        .route("/two", post(two))
        .route("/at-most-once", post(at_most_once))
}

/// The commands that the server counts for a first request to `path`. A script's own commands count as well: `evalsha` is one
/// round trip.
async fn commands_of(service: &Service, path: &str) -> Vec<(String, u64)> {
    let redis = service.redis.as_ref().expect("it has one");
    // Loads the scripts; once in the life of a server.
    for key in ["warm", "counted"] {
        redis.reset().await;
        let answer = service.client.order_at(path, key, &Order::new("o")).send().await;
        assert_eq!(answer.status, StatusCode::CREATED, "{path}: {answer:?}");
    }
    redis.commands().await
}

fn counts(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    let counts = expected.iter().map(|(name, calls)| ((*name).to_owned(), *calls));
    counts.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_costs_one_round_trip_and_one_at_most_once_two() {
    let service = Service::redis(routes()).await;
    let without = commands_of(&service, "/orders").await;
    assert_eq!(
        commands_of(&service, "/none").await,
        without,
        "a handler that asks for no step costs what one without `Steps` does"
    );
    let steps = |evalsha, records| {
        counts(&[
            ("del", 2),
            ("evalsha", evalsha),
            ("getrange", evalsha),
            ("hset", records),
            ("pexpire", 2 * records - 1),
            ("publish", 1),
            ("set", 3),
        ])
    };
    // Two steps and the completion; the claim is a plain `SET`.
    assert_eq!(commands_of(&service, "/two").await, steps(3, 2));
    // The start, the end and the completion.
    assert_eq!(commands_of(&service, "/at-most-once").await, steps(3, 2));
}

fn record_key(name: &str) -> RecordKey {
    RecordKey::new("o", &Scope::global(), &IdempotencyKey::of(name)).expect("a valid key")
}

fn claim_for(lease: Duration) -> Claim {
    let policy = ClaimPolicy::new(Duration::from_mins(1)).with_lease(lease);
    Claim::first(Fingerprint::NONE, &policy)
}

/// As its owner passes it once it has tried to record a step.
fn with_steps(claim: &Claim) -> Claim {
    Claim {
        has_steps: true,
        ..claim.clone()
    }
}

/// A claim in place that has a step.
async fn claimed_with_step(backend: &RedisBackend, key: &RecordKey, lease: Duration) -> Claim {
    let claim = claim_for(lease);
    let claimed = backend.claim(key, &claim).await.expect("claimed");
    assert_eq!(claimed, Acquisition::Acquired);
    record(backend, key, &claim).await;
    with_steps(&claim)
}

async fn record(backend: &RedisBackend, key: &RecordKey, claim: &Claim) {
    let recorded = backend.record_step(key, claim, "one", &Bytes::from_static(b"1")).await;
    assert_eq!(recorded.expect("recorded"), Fenced::Applied);
}

fn completion(bytes: usize) -> Completion {
    Completion::Stored(vec![b'x'; bytes].into())
}

async fn assert_completed(backend: &RedisBackend, key: &RecordKey, expected: &Completion) {
    match backend.read(key).await.expect("read") {
        Some(Record::Completed { completion, .. }) => assert_eq!(&completion, expected),
        other => panic!("{other:?}"),
    }
}

/// Every call that a record with steps can get.
pub(crate) async fn use_steps(backend: &RedisBackend, name: &str) {
    const SHORT: Duration = ClaimPolicy::MIN;
    const APPLIED: Fenced = Fenced::Applied;
    let key = record_key(name);
    let dead = claimed_with_step(backend, &key, SHORT).await;
    record(backend, &key, &dead).await;
    assert_eq!(backend.renew(&key, &dead).await.expect("renewed"), APPLIED);
    let next = with_steps(&claim_for(SHORT));
    while backend.take_over(&key, &dead, &next).await.expect("taken over") != Acquisition::Acquired {}
    let steps = backend.read_steps(&key, &next).await.expect("read");
    assert_eq!(steps, Some(vec![("one".to_owned(), Bytes::from_static(b"1"))]));
    let changed = backend.changed(&key).await.expect("subscribed");
    assert_eq!(backend.park(&key, &next).await.expect("parked"), APPLIED);
    changed.await;
    let last = with_steps(&claim_for(Duration::from_mins(1)));
    let taken = backend.take_over(&key, &next, &last).await.expect("taken over");
    assert_eq!(taken, Acquisition::Acquired);
    assert_eq!(backend.release(&key, &last).await.expect("released"), APPLIED);
    for bytes in [0, LARGE_PAYLOAD + 1] {
        let key = record_key(&format!("{name}-{bytes}"));
        let claim = claimed_with_step(backend, &key, Duration::from_mins(1)).await;
        for _ in 0..2 {
            let completed = backend.complete(&key, &claim, &completion(bytes), claim.ttl).await;
            assert_eq!(completed.expect("completed"), APPLIED);
        }
        assert_completed(backend, &key, &completion(bytes)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_expire_with_their_record_and_end_with_it() {
    in_time(async {
        let server = RedisServer::start().await;
        let backend = RedisBackend::connect(&server.url()).await.expect("it answers");
        let mut redis = server.connection().await;
        let name = "idem:{o:@global:k}";
        let mut expire_together = async |after: &str| {
            let mut times = redis::pipe();
            for key in [name.to_owned(), format!("{name}:s")] {
                times.cmd("PEXPIRETIME").arg(key);
            }
            let times: Vec<i64> = times.query_async(&mut redis).await.expect("PEXPIRETIME");
            assert!(times[0] > 0 && times[0] == times[1], "{after}: {times:?}");
            times[0]
        };
        let key = record_key("k");
        let claim = claimed_with_step(&backend, &key, ClaimPolicy::MIN).await;
        let recorded = expire_together("the first step").await;
        record(&backend, &key, &claim).await;
        expire_together("a later step").await;
        for key in [name.to_owned(), format!("{name}:s")] {
            server.tell(&format!("PEXPIRE {key} 30000")).await;
        }
        assert_eq!(backend.renew(&key, &claim).await.expect("renewed"), Fenced::Applied);
        assert!(expire_together("renewing").await >= recorded);
        let next = with_steps(&claim_for(ClaimPolicy::MIN));
        while backend.take_over(&key, &claim, &next).await.expect("taken over") != Acquisition::Acquired {}
        expire_together("taking over").await;
        assert_eq!(backend.park(&key, &next).await.expect("parked"), Fenced::Applied);
        expire_together("parking").await;
        let last = with_steps(&claim_for(Duration::from_mins(1)));
        let taken = backend.take_over(&key, &next, &last).await.expect("taken over");
        assert_eq!(taken, Acquisition::Acquired);
        expire_together("taking over what was parked").await;
        assert_eq!(backend.release(&key, &last).await.expect("released"), Fenced::Applied);
        assert_eq!(server.records().await, 0, "released, nothing is left");
        use_steps(&backend, "used").await;
        // Two completed records, and the payload of one of them.
        assert_eq!(server.records().await, 3, "completed, no steps are left");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_steps_in_the_slot_of_their_record() {
    in_time(async {
        let cluster = RedisCluster::start().await;
        let backend = RedisBackend::connect(&cluster.url()).await.expect("it answers");
        for number in 0..6 {
            use_steps(&backend, &number.to_string()).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_still_records_steps_and_ends_their_attempts() {
    in_time(async {
        let server = RedisServer::start().await;
        let backend = RedisBackend::connect(&server.url()).await.expect("it answers");
        // Loads the scripts, which needs room.
        use_steps(&backend, "warm").await;
        let (first, later, large) = (record_key("first"), record_key("later"), record_key("large"));
        let minute = Duration::from_mins(1);
        let fresh = claim_for(minute);
        let claimed = backend.claim(&first, &fresh).await.expect("claimed");
        assert_eq!(claimed, Acquisition::Acquired);
        let claim = claimed_with_step(&backend, &later, minute).await;
        let of_large = claimed_with_step(&backend, &large, minute).await;
        server.set("maxmemory-policy", "noeviction").await;
        server.set("maxmemory", "1").await;
        record(&backend, &first, &fresh).await;
        let fresh = with_steps(&fresh);
        record(&backend, &later, &claim).await;
        assert!(backend.read_steps(&later, &claim).await.expect("read").is_some());
        assert_eq!(backend.renew(&later, &claim).await.expect("renewed"), Fenced::Applied);
        assert_eq!(backend.park(&later, &claim).await.expect("parked"), Fenced::Applied);
        let next = with_steps(&claim_for(minute));
        let refused = backend.take_over(&later, &claim, &next).await.expect_err("new work");
        assert_eq!(refused.kind(), BackendErrorKind::Unavailable, "{refused:?}");
        for (key, claim, bytes) in [(&first, &fresh, 1), (&large, &of_large, LARGE_PAYLOAD + 1)] {
            let completed = backend.complete(key, claim, &completion(bytes), claim.ttl).await;
            assert_eq!(completed.expect("completed"), Fenced::Applied);
            assert_completed(&backend, key, &completion(bytes)).await;
        }
    })
    .await;
}

/// A call may have been on its way, for a claim without steps, while the first step was recorded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_from_before_the_first_step_takes_effect_after_it() {
    in_time(async {
        let server = RedisServer::start().await;
        let backend = RedisBackend::connect(&server.url()).await.expect("it answers");
        let before = |claim: &Claim| Claim {
            has_steps: false,
            ..claim.clone()
        };
        let minute = Duration::from_mins(1);
        for bytes in [1, LARGE_PAYLOAD + 1] {
            let key = record_key(&format!("completed-{bytes}"));
            let claim = before(&claimed_with_step(&backend, &key, minute).await);
            assert_eq!(backend.renew(&key, &claim).await.expect("renewed"), Fenced::Applied);
            for _ in 0..2 {
                let completed = backend.complete(&key, &claim, &completion(bytes), claim.ttl).await;
                assert_eq!(completed.expect("completed"), Fenced::Applied);
                assert_completed(&backend, &key, &completion(bytes)).await;
            }
            let key = record_key(&format!("parked-{bytes}"));
            let claim = claimed_with_step(&backend, &key, minute).await;
            assert_eq!(backend.park(&key, &claim).await.expect("parked"), Fenced::Applied);
            let completed = backend
                .complete(&key, &before(&claim), &completion(bytes), claim.ttl)
                .await;
            assert_eq!(completed.expect("answered"), Fenced::Superseded, "it is parked");
        }
        let key = record_key("released");
        let claim = before(&claimed_with_step(&backend, &key, minute).await);
        assert_eq!(backend.release(&key, &claim).await.expect("released"), Fenced::Applied);
        assert_eq!(backend.read(&key).await.expect("read"), None);
    })
    .await;
}

/// A script that is refused halfway has changed nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_the_user_may_not_record_is_recorded_once_the_permission_is_there() {
    in_time(async {
        let server = RedisServer::start().await;
        server.tell("ACL SETUSER app on >pw ~* &* +@all -hset").await;
        let url = server.url().replace("//", "//app:pw@");
        let backend = RedisBackend::connect(&url).await.expect("it may connect");
        let (key, claim) = (record_key("k"), claim_for(Duration::from_mins(1)));
        let claimed = backend.claim(&key, &claim).await.expect("claimed");
        assert_eq!(claimed, Acquisition::Acquired);
        let refused = backend.record_step(&key, &claim, "one", &Bytes::new()).await;
        assert_eq!(refused.map_err(|error| error.kind()), Err(BackendErrorKind::Refused));
        server.tell("ACL SETUSER app +hset").await;
        record(&backend, &key, &claim).await;
    })
    .await;
}
