//! What the diagnosis finds on real servers that are set up badly.

use idem_axum::{Backend as _, RedisBackend};
use idem_core::inspect::{Finding, Health};
use idem_core::{Claim, ClaimPolicy, Fingerprint, IdempotencyKey, RecordKey, Scope};
use idem_tests::{RedisCluster, RedisServer, Sentinels, in_time, until};

async fn diagnosed(url: &str) -> Vec<Finding> {
    let backend = RedisBackend::lazy(url).expect("a URL");
    let inspector = backend.inspector().expect("Redis can be inspected");
    inspector.diagnose().await.expect("a server answers")
}

/// The one finding of a check.
fn finding<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
    let mut found = findings.iter().filter(|finding| finding.check == check);
    match (found.next(), found.next()) {
        (Some(finding), None) => finding,
        _ => panic!("not one finding of {check}: {findings:#?}"),
    }
}

fn assert_found(findings: &[Finding], check: &str, health: Health, text: &str) {
    let found = finding(findings, check);
    assert!(found.health == health && found.text.contains(text), "{found:?}");
}

fn bad(findings: &[Finding]) -> Vec<&Finding> {
    findings
        .iter()
        .filter(|finding| finding.health != Health::Good)
        .collect()
}

async fn claim(backend: &RedisBackend, key: &str) {
    let key = RecordKey::new("ship", &Scope::of("acme"), &IdempotencyKey::of(key)).expect("a key");
    let claim = Claim::first(Fingerprint::NONE, &ClaimPolicy::new(std::time::Duration::from_mins(1)));
    let _ = backend.claim(&key, &claim).await.expect("the server answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_set_up_well_is_good_in_each_check() {
    let server = RedisServer::start_durable().await;
    let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
    claim(&backend, "k").await;
    let findings = diagnosed(&server.url()).await;
    assert!(bad(&findings).is_empty(), "{findings:#?}");
    for check in [
        "version",
        "deployment",
        "role",
        "eviction",
        "memory",
        "persistence",
        "replicas",
        "clients",
        "clock",
        "writes",
        "permissions",
        "records",
    ] {
        assert_eq!(finding(&findings, check).health, Health::Good);
    }
    assert_found(&findings, "records", Health::Good, "1 records were looked at");
    server.wait_for_keys(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_evicts_or_is_full_or_keeps_nothing_is_found() {
    let server = RedisServer::start().await;
    server.set("maxmemory", "1gb").await;
    server.set("maxmemory-policy", "allkeys-lru").await;
    let findings = diagnosed(&server.url()).await;
    assert_found(
        &findings,
        "eviction",
        Health::Warning,
        "set maxmemory-policy noeviction",
    );
    assert_found(&findings, "persistence", Health::Warning, "nothing is written to disk");
    server.tell("SET other x").await;
    server.set("maxmemory", "1").await;
    let findings = diagnosed(&server.url()).await;
    assert_found(&findings, "eviction", Health::Failing, "It has evicted");
    server.set("maxmemory-policy", "noeviction").await;
    let findings = diagnosed(&server.url()).await;
    assert_found(&findings, "memory", Health::Failing, "raise maxmemory");
    assert_found(&findings, "writes", Health::Failing, "OOM");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_user_may_not_do_is_named_and_its_password_is_not() {
    let server = RedisServer::start().await;
    let url = server.url().replace("//", "//app:s3cret@");
    let mut all = Vec::new();
    for (rules, health, expected) in [
        (
            "~* &* +@all -set -evalsha -subscribe",
            Health::Failing,
            "+evalsha +set +subscribe",
        ),
        ("~other:* &* +@all", Health::Failing, "~idem:*"),
        ("~* resetchannels +@all", Health::Failing, "&idem:*"),
        (
            "~* &* +@all -hset",
            Health::Warning,
            "+hset, so handlers and tasks with durable steps fail",
        ),
        (
            "~* &* +@all -scan -hdel",
            Health::Warning,
            "+hdel +scan, so some commands of an operator fail",
        ),
        ("~* &* +@all -script|load", Health::Failing, "+script|load"),
    ] {
        server.tell(&format!("ACL SETUSER app reset on >s3cret {rules}")).await;
        let findings = diagnosed(&url).await;
        assert_found(&findings, "permissions", health, expected);
        all.extend(findings);
    }
    assert_found(&diagnosed(&url).await, "role", Health::Good, "a primary");
    server
        .tell("ACL SETUSER app reset on >s3cret ~* &* +@all -info -config")
        .await;
    let findings = diagnosed(&url).await;
    assert_found(&findings, "server", Health::Unchecked, "add +info");
    assert_found(&findings, "permissions", Health::Good, "every command");
    all.extend(findings);
    server.tell("ACL SETUSER app +info").await;
    let findings = diagnosed(&url).await;
    assert_found(&findings, "persistence", Health::Warning, "no append-only file");
    all.extend(findings);
    assert!(!format!("{all:?}").contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_cannot_be_read_are_counted_and_not_named() {
    let server = RedisServer::start().await;
    let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
    for key in ["a", "b", "c"] {
        claim(&backend, key).await;
    }
    server.tell("SET idem:{ship:acme:a} \u{1}\u{1}").await;
    server.tell("PERSIST idem:{ship:acme:b}").await;
    let findings = diagnosed(&server.url()).await;
    assert_found(&findings, "records", Health::Warning, "2 of 3 records cannot be read");
    let text = &finding(&findings, "records").text;
    assert!(!text.contains("acme") && !text.contains("claimed-"), "{text}");
    assert!(
        text.contains("another version") && text.contains("lost its expiry"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_and_a_primary_that_does_not_wait_for_its_replicas_are_found() {
    in_time(async {
        let sentinels = Sentinels::start().await;
        let findings = diagnosed(&sentinels.replica.url()).await;
        assert_found(&findings, "role", Health::Failing, "connect to the primary");
        assert_found(&findings, "writes", Health::Failing, "READONLY");
        until("the replica is online", async || {
            let findings = diagnosed(&sentinels.url()).await;
            finding(&findings, "replicas").text.contains("does not wait for them")
        })
        .await;
        let findings = diagnosed(&sentinels.url()).await;
        assert_found(&findings, "replicas", Health::Warning, "set min-replicas-to-write 1");
        let backend = RedisBackend::connect(&sentinels.url()).await;
        claim(&backend.expect("the sentinels answer"), "k").await;
        sentinels.primary.set("min-replicas-to-write", "1").await;
        let findings = diagnosed(&sentinels.url()).await;
        assert_found(&findings, "replicas", Health::Good, "min-replicas-max-lag");
        assert_eq!(finding(&findings, "writes").health, Health::Good);
        assert_found(&findings, "records", Health::Good, "1 records were looked at");
        sentinels.replica.tell("REPLICAOF NO ONE").await;
        until("the replica is gone", async || {
            let findings = diagnosed(&sentinels.url()).await;
            finding(&findings, "replicas").text.contains("sentinels have no server")
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_has_lost_a_node_is_found_and_so_is_a_node_taken_for_a_server() {
    in_time(async {
        let cluster = RedisCluster::start().await;
        let findings = diagnosed(&cluster.url()).await;
        for check in ["slots", "cluster", "version", "role", "writes", "permissions", "clock"] {
            assert_eq!(finding(&findings, check).health, Health::Good, "{findings:#?}");
        }
        let memory: Vec<_> = findings.iter().filter(|finding| finding.check == "memory").collect();
        assert!(
            memory.iter().all(|finding| finding.text.starts_with("127.0.0.1:")),
            "{memory:?}"
        );
        let of_a_node = diagnosed(&cluster.urls()[0]).await;
        assert_found(&of_a_node, "deployment", Health::Failing, "redis+cluster://");
        cluster.kill(1);
        let findings = diagnosed(&cluster.url()).await;
        let address = cluster.urls()[1]
            .trim_start_matches("redis://")
            .trim_end_matches('/')
            .to_owned();
        assert_found(
            &findings,
            "server",
            Health::Failing,
            &format!("{address}: the server does not answer"),
        );
        assert_eq!(finding(&findings, "role").health, Health::Good);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_be_reached_is_an_error() {
    let mut server = RedisServer::start().await;
    let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
    server.kill();
    let inspector = backend.inspector().expect("Redis can be inspected");
    assert!(inspector.diagnose().await.is_err());
}
