//! What the Redis backend costs, stores and needs, on a real server.

use std::error::Error;

use axum::Router;
use axum::http::StatusCode;
use idem_axum::{BackendErrorKind, RedisBackend};
use idem_core::{
    Acquisition, Backend as _, Claim, ClaimPolicy, Completion, Fenced, Fingerprint, IdempotencyKey, RecordKey, Scope,
};
use idem_tests::{Log, Order, Proxy, RedisServer, Service};
use redis::AsyncTypedCommands as _;

const KEY: &str = "idem:{POST%20/orders:acme:k}";

/// Counted by the server. A script's own commands count as well: `evalsha` is one round trip, and the `getrange`, `set` and
/// `publish` beside it are inside.
fn counts(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected
        .iter()
        .map(|(name, calls)| ((*name).to_owned(), *calls))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_request_costs_two_commands_and_a_replay_one() {
    let service = Service::redis(Router::new()).await;
    let redis = service.redis.as_ref().expect("it has one");
    // Loads the script; once in the life of a server.
    service.client.order("warm", &Order::new("warm")).send().await;

    redis.reset().await;
    service.client.order("k", &Order::new("o")).send().await;
    let in_the_script = [("getrange", 1), ("publish", 1), ("set", 1)];
    let [getrange, publish, set] = in_the_script;
    assert_eq!(
        redis.commands().await,
        counts(&[("evalsha", 1), getrange, publish, ("set", set.1 + 1)])
    );

    redis.reset().await;
    assert!(service.client.order("k", &Order::new("o")).send().await.is_replay());
    assert_eq!(redis.commands().await, counts(&[("set", 1)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_one_string_that_expires_under_a_readable_key() {
    let service = Service::redis(Router::new()).await;
    let mut redis = service.redis.as_ref().expect("it has one").connection().await;
    service.client.order("k", &Order::new("o")).send().await;
    assert_eq!(redis.keys("*").await.expect("KEYS"), [KEY]);
    let left = redis::cmd("PTTL")
        .arg(KEY)
        .query_async::<u64>(&mut redis)
        .await
        .expect("PTTL");
    let day = 24 * 60 * 60 * 1000;
    assert!(left <= day && left > day - 60_000, "{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idem_15_what_cannot_be_read_is_an_error_and_not_absent() {
    let service = Service::redis(Router::new()).await;
    let mut redis = service.redis.as_ref().expect("it has one").connection().await;
    let order = Order::new("o");
    let plant_string: &[&[u8]] = &[b"", b"somebody else's", b"\x02\x01", b"\x01\x01cut short"];
    for planted in plant_string {
        redis.set(KEY, *planted).await.expect("SET");
        let answer = service.client.order("k", &order).send().await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.problem(), "backend-unavailable");
    }
    // An outage is one thing, a record that is there another.
    let in_outage = "idem:{POST%20/orders/run-in-outage:acme:k}";
    redis.set(in_outage, "somebody else's").await.expect("SET");
    let answer = service
        .client
        .order_at("/orders/run-in-outage", "k", &order)
        .send()
        .await;
    assert_eq!(answer.problem(), "backend-unavailable");
    redis.del(KEY).await.expect("DEL");
    redis.lpush(KEY, "a list").await.expect("LPUSH");
    assert_eq!(
        service.client.order("k", &order).send().await.problem(),
        "backend-unavailable"
    );
    assert_eq!(service.app.executions("o"), 0);

    let url = service.redis.as_ref().expect("it has one").url();
    let backend = RedisBackend::connect(&url).await.expect("the server answers");
    let claim = Claim::first(Fingerprint::NONE, &ClaimPolicy::new(std::time::Duration::from_mins(1)));
    let error = backend
        .claim(&record_key(), &claim)
        .await
        .expect_err("a list is no record");
    assert_eq!(error.kind(), BackendErrorKind::Unreadable);
}

fn record_key() -> RecordKey {
    RecordKey::new("POST /orders", &Scope::of("acme"), &IdempotencyKey::of("k")).expect("a valid key")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idem_13_a_server_that_goes_away_is_a_503_and_the_handler_does_not_run() {
    let mut service = Service::redis(Router::new()).await;
    service.redis.as_mut().expect("it has one").kill();
    for _ in 0..3 {
        let answer = service.client.order("k", &Order::new("o")).send().await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.problem(), "backend-unavailable");
        assert!(answer.headers.contains_key("retry-after"));
    }
    assert_eq!(service.app.executions("o"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idem_13_an_outcome_that_cannot_be_recorded_reaches_the_client_and_says_so() {
    let mut service = Service::redis(Router::new()).await;
    let first = tokio::spawn(service.client.order("k", &Order::new("o").held()).send());
    service.app.wait_until_started(1).await;
    service.redis.as_mut().expect("it has one").kill();
    service.app.open_gate();
    let first = first.await.expect("no panic");
    assert_eq!(first.status, StatusCode::CREATED);
    assert!(first.says_not_stored());
}

/// The permissions in the documentation of `idem-redis` are enough for everything the backend does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_permissions_are_enough() {
    let server = RedisServer::start().await;
    let documented = |start| {
        let mut lines = include_str!("../../idem-redis/src/lib.rs").lines();
        let found = lines.find_map(|line| line.strip_prefix("//! ").filter(|list| list.starts_with(start)));
        found.expect("the list is there")
    };
    let rules = format!("on >pw {} {}", documented("~idem:*"), documented("+hset"));
    let mut admin = server.connection().await;
    let mut setuser = redis::cmd("ACL");
    setuser
        .arg("SETUSER")
        .arg("app")
        .arg(rules.split_whitespace().collect::<Vec<_>>());
    setuser.exec_async(&mut admin).await.expect("every rule is known");

    let backend = RedisBackend::connect(&server.url().replace("redis://", "redis://app:pw@"))
        .await
        .expect("it may connect");
    // Without +info, the check at start is skipped; that is the one denial.
    redis::cmd("ACL")
        .arg("LOG")
        .arg("RESET")
        .exec_async(&mut admin)
        .await
        .expect("ACL LOG");
    let key = record_key();
    let short = ClaimPolicy::new(ClaimPolicy::MIN).with_lease(ClaimPolicy::MIN);
    let dead = Claim::first(
        Fingerprint::NONE,
        &ClaimPolicy::new(ClaimPolicy::MAX_TTL).with_lease(ClaimPolicy::MIN),
    );
    assert_eq!(backend.claim(&key, &dead).await.expect("SET"), Acquisition::Acquired);
    assert_eq!(backend.renew(&key, &dead).await.expect("PEXPIRE"), Fenced::Applied);
    let successor = Claim::first(Fingerprint::NONE, &short);
    while backend
        .take_over(&key, &dead, &successor)
        .await
        .expect("GET, PTTL, SET")
        != Acquisition::Acquired
    {}
    let changed = backend.changed(&key).await.expect("SUBSCRIBE");
    let released = backend.release(&key, &successor).await.expect("DEL, PUBLISH");
    assert_eq!(released, Fenced::Applied);
    changed.await;
    server.wait_for_calls("unsubscribe", 1).await;
    assert_eq!(backend.claim(&key, &dead).await.expect("SET"), Acquisition::Acquired);
    let completed = backend
        .complete(&key, &dead, &Completion::NotStored, dead.ttl)
        .await
        .expect("SET, PUBLISH");
    assert_eq!(completed, Fenced::Applied);
    crate::redis_steps::use_steps(&backend, "steps").await;
    let log: Vec<redis::Value> = redis::cmd("ACL")
        .arg("LOG")
        .query_async(&mut admin)
        .await
        .expect("ACL LOG");
    // How the client introduces itself, which no server has to hear; and a health check, to which a denial is an answer.
    let denied = |entry: &&redis::Value| {
        let entry = format!("{entry:?}");
        !entry.contains("client|setinfo") && !entry.contains("\"ping\"")
    };
    let denied: Vec<_> = log.iter().filter(denied).collect();
    assert!(denied.is_empty(), "something was denied: {denied:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_still_records_what_has_happened() {
    let service = Service::redis(Router::new()).await;
    let server = service.redis.as_ref().expect("it has one");
    let order = Order::new("o").held();
    let first = tokio::spawn(service.client.order("k", &order).send());
    service.app.wait_until_started(1).await;
    server.set("maxmemory-policy", "noeviction").await;
    server.set("maxmemory", "1").await;
    let refused = service.client.order("other", &Order::new("other")).send().await;
    assert_eq!(
        refused.problem(),
        "backend-unavailable",
        "a full server takes no new claim"
    );
    assert!(service.idempotency.check().await.is_err(), "and is not ready");
    service.app.open_gate();
    let first = first.await.expect("no panic");
    assert_eq!(first.headers.get("idempotency-stored"), None);
    // SET NX GET counts as a write, so that replaying needs room as well.
    server.set("maxmemory", "0").await;
    service.idempotency.check().await.expect("it has room again");
    service.client.order("k", &order).send().await.assert_replays(&first);
    assert_eq!(service.app.executions("o"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_keeps_two_applications_on_one_server_apart() {
    let server = RedisServer::start().await;
    let connect = async || RedisBackend::connect(&server.url()).await.expect("the server answers");
    let ours = Service::start(connect().await.with_prefix("ours"), Router::new(), None).await;
    let theirs = Service::start(connect().await.with_prefix("theirs"), Router::new(), None).await;
    assert!(!ours.client.order("k", &Order::new("o")).send().await.is_replay());
    assert!(!theirs.client.order("k", &Order::new("o")).send().await.is_replay());
    let mut keys = server.connection().await.keys("*").await.expect("KEYS");
    keys.sort();
    assert_eq!(keys, ["ours:{POST%20/orders:acme:k}", "theirs:{POST%20/orders:acme:k}"]);
}

#[tokio::test]
async fn a_wrong_url_is_a_clear_error_without_its_password() {
    for (url, kind) in [
        ("redis//localhost", BackendErrorKind::Config),
        ("http://user:hunter2@localhost/", BackendErrorKind::Config),
        ("redis://user:hunter2@localhost:notaport/", BackendErrorKind::Config),
        ("redis://user:hunter2@localhost/notadb", BackendErrorKind::Config),
        (
            "redis+unix:///nowhere/redis.sock?pass=hunter2",
            BackendErrorKind::Unavailable,
        ),
        ("redis://:hunter2@127.0.0.1:1/", BackendErrorKind::Unavailable),
    ] {
        let error = RedisBackend::connect(url).await.expect_err(url);
        assert_eq!(error.kind(), kind, "{url}: {error:?}");
        let mut said = format!("{error:?}");
        let mut cause: Option<&dyn Error> = Some(&error);
        while let Some(error) = cause {
            said = format!("{said}\n{error}");
            cause = error.source();
        }
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused_by_name() {
    let server = RedisServer::start().await;
    let error = RedisBackend::connect(&server.url().replace("redis://", "redis://nobody:hunter2@"))
        .await
        .expect_err("there is no such user");
    assert_eq!(error.kind(), BackendErrorKind::Refused, "{error:?}");
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idem_13_an_outcome_is_recorded_once_the_server_is_back() {
    let mut service = Service::redis(Router::new()).await;
    let order = Order::new("o").held();
    let first = tokio::spawn(service.client.order("k", &order).send());
    service.app.wait_until_started(1).await;
    // Frozen, it keeps the claim and answers nobody.
    let server = service.redis.take().expect("it has one");
    server.freeze();
    service.app.open_gate();
    let first = first.await.expect("no panic");
    assert_eq!(first.status, StatusCode::CREATED);
    assert!(first.says_not_stored());

    server.thaw();
    idem_tests::in_time(service.idempotency.drain()).await;

    let retry = service.client.order("k", &order).send().await;
    assert!(retry.is_replay(), "{retry:?}");
    assert_eq!(retry.body, first.body);
    assert_eq!(service.app.executions("o"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_broke_while_it_was_idle_costs_no_request() {
    let service = Service::redis(Router::new()).await;
    let server = service.redis.as_ref().expect("it has one");
    for key in ["before", "after"] {
        let answer = service.client.order(key, &Order::new(key)).send().await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
        kill.exec_async(&mut server.connection().await)
            .await
            .expect("CLIENT KILL");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_restarted_is_used_again() {
    let mut service = Service::redis(Router::new()).await;
    let server = service.redis.as_mut().expect("it has one");
    server.kill();
    assert_eq!(
        service.client.order("k", &Order::new("o")).send().await.problem(),
        "backend-unavailable"
    );
    server.restart().await;
    let recovered = idem_tests::PATIENCE;
    let since = std::time::Instant::now();
    loop {
        let answer = service.client.order("k", &Order::new("o")).send().await;
        if answer.status == StatusCode::CREATED {
            break;
        }
        assert_eq!(answer.problem(), "backend-unavailable");
        assert!(since.elapsed() < recovered, "it never recovers");
    }
}

/// What a firewall does to a connection that it has forgotten: nothing comes back, and nothing says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_has_gone_silent_is_replaced() {
    let server = RedisServer::start().await;
    let proxy = Proxy::start(server.address()).await;
    let backend = RedisBackend::connect(&format!("redis://{}/", proxy.address))
        .await
        .expect("the server answers");
    let service = Service::start(backend, Router::new(), None).await;
    assert_eq!(
        service.client.order("1", &Order::new("o")).send().await.status,
        StatusCode::CREATED
    );

    proxy.silence_connections();

    let mut refused = 0;
    while service.client.order("2", &Order::new("o")).send().await.status != StatusCode::CREATED {
        refused += 1;
        assert!(refused < 10, "it never recovers");
    }
    assert!(refused > 0, "the connection was not silent");
}

#[tokio::test]
async fn a_server_that_evicts_is_warned_about_at_start() {
    let server = RedisServer::start().await;
    server.set("maxmemory", "100mb").await;
    server.set("maxmemory-policy", "allkeys-lru").await;
    let (log, _logging) = Log::listen(tracing::Level::INFO);
    RedisBackend::connect(&server.url())
        .await
        .expect("it warns and goes on");
    let log = log.text();
    assert!(
        log.contains("WARN") && log.contains("set maxmemory-policy noeviction"),
        "{log}"
    );
}
