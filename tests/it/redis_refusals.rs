//! What a server refuses for a while is an outage like any other: an outcome that waits to be recorded waits for its end,
//! however many leases that takes.

use std::fs;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use idem_axum::{Backend, BackendErrorKind, RedisBackend};
use idem_tests::{Order, RedisCluster, RedisServer, Sentinels, Service, in_time, until};
use redis::aio::MultiplexedConnection;

/// A handler with a lease of a second.
const PATH: &str = "/orders/short-lease";

/// Longer than the lease.
const OUTAGE: Duration = Duration::from_secs(3);

/// Runs a handler whose outcome cannot be recorded between `refuse` and `mend`, and sees that it ran once.
pub(crate) async fn assert_recorded_after(backend: impl Backend, refuse: impl AsyncFnOnce(), mend: impl AsyncFnOnce()) {
    let service = Service::start(backend, Router::new(), None).await;
    // What is loaded once in the life of a server is loaded.
    let warm = service.client.order_at(PATH, "warm", &Order::new("warm")).send().await;
    assert_eq!(warm.status, StatusCode::CREATED, "{warm:?}");
    let order = Order::new("o").held();
    let first = tokio::spawn(service.client.order_at(PATH, "k", &order).send());
    service.app.wait_until_started(2).await;
    refuse().await;
    service.app.open_gate();
    let first = first.await.expect("no panic");
    assert_eq!(first.status, StatusCode::CREATED);
    assert!(first.says_not_stored(), "{first:?}");
    let meanwhile = service.client.order_at(PATH, "l", &Order::new("l")).send().await;
    assert_eq!(meanwhile.problem(), "backend-unavailable");
    // How long the outage is. The outcome is recorded however long it is.
    tokio::time::sleep(OUTAGE).await;
    mend().await;
    service.idempotency.drain().await;
    until("it is replayed", async || {
        let retry = service.client.order_at(PATH, "k", &order).send().await;
        retry.is_replay() || retry.status != StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    let retry = service.client.order_at(PATH, "k", &order).send().await;
    assert!(retry.is_replay(), "{retry:?}");
    assert_eq!((retry.status, &retry.body), (first.status, &first.body));
    assert_eq!(service.app.executions("o"), 1);
}

/// Commands over a connection that was there before.
async fn tell(admin: &MultiplexedConnection, commands: &[&str]) {
    for command in commands {
        let mut words = command.split(' ');
        let mut told = redis::cmd(words.next().unwrap_or_default());
        told.arg(words.collect::<Vec<_>>());
        let said = told.exec_async(&mut admin.clone()).await;
        said.unwrap_or_else(|error| panic!("{command}: {error}"));
    }
}

const HANG_UP: &str = "CLIENT KILL TYPE normal SKIPME yes";

/// On one server, with the commands that make it refuse and those that end that.
async fn assert_recorded_after_commands(refuse: &[&str], mend: &[&str]) {
    in_time(async {
        let server = RedisServer::start().await;
        let admin = server.connection().await;
        tell(
            &admin,
            &[
                "ACL SETUSER app on >old ~* &* +@all",
                "CONFIG SET busy-reply-threshold 10",
            ],
        )
        .await;
        let url = server.url().replace("//", "//app:old@");
        let backend = RedisBackend::connect(&url).await.expect("it may connect");
        assert_recorded_after(
            backend,
            async || tell(&admin, refuse).await,
            async || tell(&admin, mend).await,
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_rotated_costs_no_outcome() {
    assert_recorded_after_commands(&["ACL SETUSER app resetpass >new", HANG_UP], &["ACL SETUSER app >old"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_is_gone_for_a_while_costs_no_outcome() {
    assert_recorded_after_commands(&["ACL DELUSER app"], &["ACL SETUSER app on >old ~* &* +@all"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_that_is_taken_for_a_while_costs_no_outcome() {
    assert_recorded_after_commands(&["ACL SETUSER app -set -evalsha"], &["ACL SETUSER app +set +evalsha"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_closed_for_a_while_cost_no_outcome() {
    assert_recorded_after_commands(&["ACL SETUSER app resetkeys ~other:*"], &["ACL SETUSER app ~*"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_too_many_clients_costs_no_outcome() {
    assert_recorded_after_commands(&["CONFIG SET maxclients 1", HANG_UP], &["CONFIG SET maxclients 1000"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_a_replica_for_a_while_costs_no_outcome() {
    assert_recorded_after_commands(&["REPLICAOF 127.0.0.1 1"], &["REPLICAOF NO ONE"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_has_lost_its_primary_for_a_while_costs_no_outcome() {
    assert_recorded_after_commands(
        &["CONFIG SET replica-serve-stale-data no", "REPLICAOF 127.0.0.1 1"],
        &["REPLICAOF NO ONE"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_wants_replicas_for_a_while_costs_no_outcome() {
    assert_recorded_after_commands(
        &["CONFIG SET min-replicas-to-write 1"],
        &["CONFIG SET min-replicas-to-write 0"],
    )
    .await;
}

/// A disk that takes no snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_for_a_while_costs_no_outcome() {
    in_time(async {
        let server = RedisServer::start_with(&["--enable-protected-configs", "yes"]).await;
        let admin = server.connection().await;
        let mut save = redis::cmd("CONFIG");
        save.arg("SET").arg("save").arg("3600 1");
        save.exec_async(&mut admin.clone()).await.expect("CONFIG SET");
        let backend = RedisBackend::connect(&server.url()).await.expect("it answers");
        let folder = server.folder().join("in-the-way");
        assert_recorded_after(
            backend,
            async || {
                // A folder by the name of the snapshot cannot be replaced by it.
                fs::create_dir(&folder).expect("the folder is ours");
                tell(&admin, &["CONFIG SET dbfilename in-the-way", "BGSAVE"]).await;
                until("it has failed", async || {
                    let info: String = redis::cmd("INFO")
                        .arg("persistence")
                        .query_async(&mut admin.clone())
                        .await
                        .expect("INFO");
                    info.contains("rdb_last_bgsave_status:err")
                })
                .await;
            },
            async || {
                tell(&admin, &["CONFIG SET dbfilename dump.rdb", "BGSAVE"]).await;
            },
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_of_somebody_elses_that_does_not_end_costs_no_outcome() {
    in_time(async {
        let server = RedisServer::start().await;
        let (admin, mut other) = (server.connection().await, server.connection().await);
        tell(&admin, &["CONFIG SET busy-reply-threshold 10"]).await;
        let backend = RedisBackend::connect(&server.url()).await.expect("it answers");
        let mut endless = redis::cmd("EVAL");
        endless.arg("while true do end").arg(0);
        assert_recorded_after(
            backend,
            async || {
                other.set_response_timeout(Duration::from_mins(1));
                tokio::spawn(async move { endless.exec_async(&mut other).await });
                until("it is busy", async || {
                    let said: redis::RedisResult<()> = redis::cmd("PING").query_async(&mut admin.clone()).await;
                    said.is_err_and(|error| error.code() == Some("BUSY"))
                })
                .await;
            },
            async || tell(&admin, &["SCRIPT KILL"]).await,
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_down_for_a_while_costs_no_outcome() {
    in_time(async {
        let cluster = RedisCluster::start().await;
        let backend = RedisBackend::connect(&cluster.url()).await.expect("it answers");
        let all = async |command: &str| {
            for node in 0..3 {
                let () = cluster.query(node, command).await;
            }
        };
        assert_recorded_after(
            backend,
            async || {
                // A slot that nobody has, and that is neither key's.
                all("CONFIG SET cluster-require-full-coverage yes").await;
                all("CLUSTER DELSLOTS 0").await;
                until("it is down", async || {
                    let mut down = true;
                    for node in 0..3 {
                        let info: String = cluster.query(node, "CLUSTER INFO").await;
                        down &= info.contains("cluster_state:fail");
                    }
                    down
                })
                .await;
            },
            async || {
                let () = cluster.query(0, "CLUSTER ADDSLOTS 0").await;
                all("CONFIG SET cluster-require-full-coverage no").await;
            },
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_that_want_another_password_for_a_while_cost_no_outcome() {
    in_time(async {
        let redis = Sentinels::start().await;
        let backend = RedisBackend::connect(&redis.url()).await.expect("there is a primary");
        assert_recorded_after(
            backend,
            async || {
                redis.tell(None, "ACL SETUSER default resetpass >other").await;
                redis.primary.tell(HANG_UP).await;
            },
            async || redis.tell(Some("other"), "ACL SETUSER default nopass").await,
        )
        .await;
    })
    .await;
}

/// At start, it is a mistake rather than an outage, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_with_another_password_is_refused_by_name_at_start() {
    let cluster = RedisCluster::start().await;
    let url = cluster.url().replace("//", "//nobody:hunter2@");
    let error = RedisBackend::connect(&url).await.expect_err("there is no such user");
    assert_eq!(error.kind(), BackendErrorKind::Refused, "{error:?}");
    assert!(!format!("{error:?}").contains("hunter2"));
    let lazy = RedisBackend::lazy(&url).expect("a URL");
    let error = lazy.check().await.expect_err("there is no such user");
    assert!(error.is_transient(), "{error:?}");
}
