//! Completions that come at the same time share a command, and nothing else.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use idem_axum::{BackendError, BackendErrorKind, RedisBackend};
use idem_core::{
    Acquisition, Backend as _, Claim, ClaimPolicy, Completion, Fenced, Fingerprint, IdempotencyKey, Record, RecordKey,
    Scope,
};
use idem_tests::{RedisCluster, RedisServer};
use redis::AsyncTypedCommands as _;
use tokio::task::JoinSet;

/// A backend that has completed before, so that the server knows the script; and nothing is counted yet.
async fn backend(redis: &RedisServer) -> RedisBackend {
    let backend = RedisBackend::connect(&redis.url()).await.expect("the server answers");
    let [(key, claim)] = claimed(&backend, ["warm"]).await;
    let fenced = complete(&backend, &key, &claim, 1).await.expect("completed");
    assert_eq!(fenced, Fenced::Applied);
    redis.reset().await;
    backend
}

fn record_key(name: &str) -> RecordKey {
    RecordKey::new("o", &Scope::global(), &IdempotencyKey::of(name)).expect("a valid key")
}

fn claim() -> Claim {
    Claim::first(Fingerprint::NONE, &ClaimPolicy::new(Duration::from_mins(1)))
}

async fn claimed<const N: usize>(backend: &RedisBackend, names: [&str; N]) -> [(RecordKey, Claim); N] {
    let claims = names.map(|name| (record_key(name), claim()));
    for (key, claim) in &claims {
        let acquired = backend.claim(key, claim).await.expect("claimed");
        assert_eq!(acquired, Acquisition::Acquired);
    }
    claims
}

fn answer(bytes: usize) -> Completion {
    Completion::Stored(vec![b'x'; bytes].into())
}

async fn complete(
    backend: &RedisBackend,
    key: &RecordKey,
    claim: &Claim,
    bytes: usize,
) -> Result<Fenced, BackendError> {
    backend.complete(key, claim, &answer(bytes), claim.ttl).await
}

/// Completes `count` claims at once with answers of `bytes`, and says how many commands that took.
///
/// On one thread, the task that sends runs when all of them wait.
async fn commands_for(redis: &RedisServer, backend: &RedisBackend, count: u32, bytes: usize) -> u64 {
    let mut claims = Vec::new();
    for number in 0..count {
        claims.extend(claimed(backend, [&format!("{bytes}-{number}")]).await);
    }
    redis.reset().await;
    let completions = claims.iter().map(|(key, claim)| complete(backend, key, claim, bytes));
    for fenced in join_all(completions).await {
        assert_eq!(fenced.expect("completed"), Fenced::Applied);
    }
    for (key, _) in &claims {
        let Acquisition::Existing(Record::Completed { completion, .. }) =
            backend.claim(key, &claim()).await.expect("looked up")
        else {
            panic!("it is completed");
        };
        assert_eq!(completion, answer(bytes));
    }
    let commands = redis.commands().await;
    let sent = commands.into_iter().find(|(name, _)| name == "evalsha");
    sent.map_or(0, |(_, calls)| calls)
}

#[tokio::test]
async fn completions_that_come_together_are_one_command() {
    let redis = RedisServer::start().await;
    let backend = backend(&redis).await;
    assert_eq!(commands_for(&redis, &backend, 1, 100).await, 1);
    assert_eq!(commands_for(&redis, &backend, 40, 101).await, 1);
}

#[tokio::test]
async fn a_command_never_keeps_the_server_for_long() {
    let redis = RedisServer::start().await;
    let backend = backend(&redis).await;
    assert_eq!(commands_for(&redis, &backend, 65, 100).await, 2);
    // Four of these fit into one.
    assert_eq!(commands_for(&redis, &backend, 5, 60 * 1024).await, 2);
    // Larger ones are completed one by one, once their answers are there; the first of them loads the script.
    assert_eq!(commands_for(&redis, &backend, 1, 100 * 1024).await, 2);
    assert_eq!(commands_for(&redis, &backend, 2, 1024 * 1024).await, 2);
}

#[tokio::test]
async fn each_of_the_completions_in_a_command_ends_by_itself() {
    let redis = RedisServer::start().await;
    let backend = backend(&redis).await;
    let claims = claimed(&backend, ["first", "superseded", "foreign", "repeated", "gone", "last"]).await;
    let [_, (superseded, _), _, (repeated, done), (gone, given_up), _] = &claims;
    let mut connection = redis.connection().await;
    connection.del("idem:{o:@global:superseded}").await.expect("DEL");
    let other = claim();
    let acquired = backend.claim(superseded, &other).await.expect("claimed");
    assert_eq!(acquired, Acquisition::Acquired);
    connection.del("idem:{o:@global:foreign}").await.expect("DEL");
    connection
        .lpush("idem:{o:@global:foreign}", "a list")
        .await
        .expect("LPUSH");
    let fenced = complete(&backend, repeated, done, 7).await.expect("completed");
    assert_eq!(fenced, Fenced::Applied);
    let released = backend.release(gone, given_up).await.expect("released");
    assert_eq!(released, Fenced::Applied);

    redis.reset().await;
    let answers = join_all(claims.iter().map(|(key, claim)| complete(&backend, key, claim, 7))).await;
    let kinds: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.map_err(|error| error.kind()))
        .collect();
    let (applied, superseded_one) = (Ok(Fenced::Applied), Ok(Fenced::Superseded));
    let foreign = Err(BackendErrorKind::Unreadable);
    assert_eq!(
        kinds,
        [applied, superseded_one, foreign, applied, superseded_one, applied]
    );
    let commands = redis.commands().await;
    assert!(commands.contains(&("evalsha".to_owned(), 1)), "{commands:?}");

    // The other attempt's claim is as it was.
    let fenced = complete(&backend, superseded, &other, 7).await.expect("completed");
    assert_eq!(fenced, Fenced::Applied);
}

#[tokio::test]
async fn a_completion_that_was_given_up_before_it_was_sent_is_not_sent() {
    let redis = RedisServer::start().await;
    let backend = backend(&redis).await;
    let [(key, given_up), (other, kept)] = claimed(&backend, ["given up", "kept"]).await;
    assert!(complete(&backend, &key, &given_up, 1).now_or_never().is_none());
    let fenced = complete(&backend, &other, &kept, 1).await.expect("completed");
    assert_eq!(fenced, Fenced::Applied);
    let fenced = backend.release(&key, &given_up).await.expect("released");
    assert_eq!(fenced, Fenced::Applied);
}

#[tokio::test]
async fn completions_survive_that_the_server_forgets_its_scripts() {
    let redis = RedisServer::start().await;
    let backend = backend(&redis).await;
    let claims = claimed(&backend, ["a", "b", "c"]).await;
    let flushed: redis::RedisResult<()> = redis::cmd("SCRIPT")
        .arg("FLUSH")
        .query_async(&mut redis.connection().await)
        .await;
    flushed.expect("SCRIPT FLUSH");
    let answers = join_all(claims.iter().map(|(key, claim)| complete(&backend, key, claim, 1))).await;
    for fenced in answers {
        assert_eq!(fenced.expect("completed"), Fenced::Applied);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completions_of_many_tasks_all_end() {
    let redis = RedisServer::start().await;
    let backend = backend(&redis).await;
    let mut completions = JoinSet::new();
    for number in 0..500 {
        let backend = backend.clone();
        completions.spawn(async move {
            let [(key, claim)] = claimed(&backend, [&format!("{number}")]).await;
            complete(&backend, &key, &claim, 100).await
        });
    }
    for fenced in completions.join_all().await {
        assert_eq!(fenced.expect("completed"), Fenced::Applied);
    }
}

#[tokio::test]
async fn a_node_of_a_cluster_that_is_taken_for_one_server_completes_its_own_keys() {
    let cluster = RedisCluster::start().await;
    let backend = RedisBackend::connect(&cluster.urls()[0])
        .await
        .expect("the node answers");
    let mut claims = Vec::new();
    for number in 0.. {
        let name = format!("k{number}");
        if cluster.owner(&format!("idem:{{o:@global:{name}}}")).await == 0 {
            claims.extend(claimed(&backend, [&name]).await);
        }
        if claims.len() == 5 {
            break;
        }
    }
    for round in claims.chunks(2) {
        let completions = round.iter().map(|(key, claim)| complete(&backend, key, claim, 1));
        for fenced in join_all(completions).await {
            assert_eq!(fenced.expect("completed"), Fenced::Applied);
        }
    }
}
