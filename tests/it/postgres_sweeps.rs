//! Deleting what has expired from Postgres, and what it costs requests.

use std::time::Duration;

use bytes::Bytes;
use idem_axum::PostgresBackend;
use idem_axum::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use idem_axum::sqlx::{self, AssertSqlSafe};
use idem_core::steps::StepBackend as _;
use idem_core::{
    Acquisition, Backend as _, Claim, ClaimPolicy, Completion, Fenced, Fingerprint, IdempotencyKey, RecordKey, Scope,
};
use idem_tests::{Order, PostgresServer, Process, in_time, until};
use tokio::task::JoinSet;

/// A claim on `key`, acquired.
async fn claimed(backend: &PostgresBackend, key: &str) -> (RecordKey, Claim) {
    let key = RecordKey::new("o", &Scope::global(), &IdempotencyKey::of(key)).expect("a valid key");
    let claim = Claim::first(Fingerprint::NONE, &ClaimPolicy::new(Duration::from_mins(10)));
    let claimed = backend.claim(&key, &claim).await;
    assert_eq!(claimed.expect("a healthy server"), Acquisition::Acquired);
    (key, claim)
}

async fn complete(backend: &PostgresBackend, (key, claim): (RecordKey, Claim)) {
    let completed = backend.complete(&key, &claim, &Completion::NotStored, claim.ttl).await;
    assert_eq!(completed.expect("a healthy server"), Fenced::Applied);
}

/// Where the page has room, the new row takes the place of the old one in both indexes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_writes_no_index() {
    let server = PostgresServer::shared().await;
    let (_, schema) = server.backend().await;
    let pool = server.pool().await;
    let backend = PostgresBackend::new(pool.clone()).with_schema(&schema);
    for key in 0..10 {
        complete(&backend, claimed(&backend, &key.to_string()).await).await;
    }
    // A connection that closes says what it has done.
    pool.close().await;
    let counted = format!("FROM pg_stat_user_tables WHERE schemaname = '{schema}' AND relname = 'idem_records'");
    until("the updates are counted", async || {
        server.query::<i64>(&format!("SELECT n_tup_upd {counted}")).await == 10
    })
    .await;
    let in_place: i64 = server.query(&format!("SELECT n_tup_hot_upd {counted}")).await;
    assert_eq!(in_place, 10);
}

/// `Verdict::KeepFor`: the row is not kept for the operation's `ttl`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_is_kept_for_less_than_the_ttl_is_swept_when_it_expires() {
    let server = PostgresServer::shared().await;
    let (backend, schema) = server.backend().await;
    for (key, kept) in [("short", Duration::from_millis(100)), ("usual", Duration::from_mins(9))] {
        let (key, claim) = claimed(&backend, key).await;
        let completed = backend.complete(&key, &claim, &Completion::NotStored, kept).await;
        assert_eq!(completed.expect("a healthy server"), Fenced::Applied);
    }
    let expired = format!("SELECT count(*) FROM {schema}.idem_records WHERE expires_at <= now()");
    until("the first one has expired", async || {
        server.query::<i64>(&expired).await == 1
    })
    .await;
    assert_eq!(backend.sweep(10).await.expect("sweeps"), 1);
}

/// A version from before steps reads the row of such a claim without its renewed lease, and must not find it expired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_with_steps_that_is_renewed_expires_in_no_column() {
    let server = PostgresServer::shared().await;
    let (backend, schema) = server.backend().await;
    let (key, mut claim) = claimed(&backend, "k").await;
    let long_ago = format!(
        "UPDATE {schema}.idem_records SET expires_at = now() + interval '1 second', sweep_at = now() + interval '1 second'"
    );
    let kept = format!(
        "SELECT count(*) FROM {schema}.idem_records WHERE expires_at > now() + interval '9 minutes' AND sweep_at >= expires_at"
    );
    let renew = async |claim: &Claim| {
        let renewed = backend.renew(&key, claim).await;
        assert_eq!(renewed.expect("a healthy server"), Fenced::Applied);
    };
    server.execute(&long_ago).await;
    renew(&claim).await;
    assert_eq!(
        server.query::<i64>(&kept).await,
        0,
        "without steps, the row is left alone"
    );

    let recorded = backend.record_step(&key, &claim, "hold", &Bytes::new()).await;
    assert_eq!(recorded.expect("a healthy server"), Fenced::Applied);
    assert_eq!(server.query::<i64>(&kept).await, 1, "by the step");
    claim.has_steps = true;
    server.execute(&long_ago).await;
    renew(&claim).await;
    assert_eq!(server.query::<i64>(&kept).await, 1, "by the renewal");

    let place = format!("SELECT ctid::text FROM {schema}.idem_records");
    let before: String = server.query(&place).await;
    renew(&claim).await;
    assert_eq!(
        server.query::<String>(&place).await,
        before,
        "a row that is kept for long is not written"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sweep_never_comes_before_a_record_expires_however_it_came_to_be() {
    let server = PostgresServer::shared().await;
    let (backend, schema) = server.backend().await;
    let lapse = format!(
        "UPDATE {schema}.idem_records SET lease_until = now() - interval '1 second', \
         expires_at = now() + interval '1 second', sweep_at = now() + interval '1 second'; \
         UPDATE {schema}.idem_records_leases SET lease_until = now() - interval '1 second'"
    );
    let expire = format!("UPDATE {schema}.idem_records SET expires_at = now() - interval '1 second'");
    let (key, first) = claimed(&backend, "k").await;
    let after = async |what| {
        let early = format!("SELECT count(*) FROM {schema}.idem_records WHERE sweep_at < expires_at");
        assert_eq!(server.query::<i64>(&early).await, 0, "{what}");
    };
    after("a claim").await;
    server.execute(&lapse).await;
    assert_eq!(backend.renew(&key, &first).await.expect("renews"), Fenced::Applied);
    after("a renewal").await;
    server.execute(&lapse).await;
    let second = Claim::first(Fingerprint::NONE, &ClaimPolicy::new(Duration::from_mins(10)));
    let taken = backend.take_over(&key, &first, &second).await;
    assert_eq!(taken.expect("takes over"), Acquisition::Acquired);
    after("a takeover").await;
    server.execute(&lapse).await;
    complete(&backend, (key, second)).await;
    after("a completion after the lease").await;
    server.execute(&expire).await;
    complete(&backend, claimed(&backend, "k").await).await;
    after("a claim over what had expired, and its completion").await;

    let early = format!("UPDATE {schema}.idem_records SET sweep_at = now() - interval '1 second'");
    server.execute(&early).await;
    assert_eq!(backend.sweep(10).await.expect("sweeps"), 0, "it has not expired");
    server.execute(&expire).await;
    assert_eq!(backend.sweep(10).await.expect("sweeps"), 1);
}

/// Writes records beside the backend: `expired` that have and `live` that have not.
async fn fill(server: &PostgresServer, schema: &str, expired: i32, live: i32) {
    server
        .execute(&format!(
            "INSERT INTO {schema}.idem_records \
             SELECT sha256(i::text::bytea), i::text, 3, '', 1, '', 1, 1, now(), \
             ends, ends FROM generate_series(1, {expired} + {live}) i, \
             LATERAL (SELECT now() + CASE WHEN i <= {expired} THEN interval '-1 second' ELSE interval '1 hour' END AS ends) _"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweeps_side_by_side_delete_each_expired_row_once_and_no_other() {
    let server = PostgresServer::shared().await;
    let (one, schema) = server.backend().await;
    let other = PostgresBackend::new(server.pool().await).with_schema(&schema);
    fill(&server, &schema, 5000, 7).await;
    let mut holder = server.connection().await;
    let hold = format!("BEGIN; SELECT FROM {schema}.idem_records WHERE key = '1' FOR UPDATE");
    sqlx::raw_sql(AssertSqlSafe(hold))
        .execute(&mut holder)
        .await
        .expect("the row is there");
    let swept = tokio::time::timeout(idem_tests::PATIENCE, one.sweep(5000))
        .await
        .expect("it waits for nobody");
    assert_eq!(swept.expect("sweeps"), 4999);
    sqlx::raw_sql("COMMIT").execute(&mut holder).await.expect("COMMIT");
    assert_eq!(one.sweep(5000).await.expect("sweeps"), 1);

    fill(&server, &schema, 5000, 0).await;
    assert_eq!(one.sweep(100).await.expect("sweeps"), 100, "no more than it was told");
    let mut sweeps = JoinSet::new();
    for backend in [one.clone(), one, other.clone(), other] {
        sweeps.spawn(async move {
            let mut swept = 0;
            for _ in 0..200 {
                swept += backend.sweep(50).await.expect("sweeps");
            }
            swept
        });
    }
    let swept: u64 = sweeps.join_all().await.into_iter().sum();
    assert_eq!(swept, 4900);
    let left: i64 = server
        .query(&format!("SELECT count(*) FROM {schema}.idem_records"))
        .await;
    assert_eq!(left, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sweepers_of_two_processes_delete_what_has_expired() {
    in_time(async {
        let server = PostgresServer::start().await;
        let processes = [(); 2].map(|()| Process::start(env!("CARGO_BIN_EXE_server"), &server.url()));
        processes[0].client.order("k", &Order::new("o")).send().await;
        fill(&server, "public", 20_000, 0).await;
        until("the expired rows are gone", async || {
            server.query::<i64>("SELECT count(*) FROM idem_records").await == 1
        })
        .await;
        let replay = processes[1].client.order("k", &Order::new("o")).send().await;
        assert!(replay.is_replay());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweeper_ends_with_the_last_clone_of_its_backend() {
    let server = PostgresServer::shared().await;
    let (_, schema) = server.backend().await;
    let options: PgConnectOptions = server.url().parse().expect("a valid URL");
    let pool = PgPoolOptions::new().connect_lazy_with(options.application_name(&schema));
    let backend = PostgresBackend::new(pool)
        .with_sweeper(Duration::from_millis(1))
        .with_schema(&schema);
    let clone = backend.clone();
    drop(backend);
    fill(&server, &schema, 10, 0).await;
    let left = format!("SELECT count(*) FROM {schema}.idem_records");
    until("it sweeps on", async || server.query::<i64>(&left).await == 0).await;
    drop(clone);
    // It was the last to hold the pool.
    let connections = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{schema}'");
    until("it has ended", async || server.query::<i64>(&connections).await == 0).await;
}
