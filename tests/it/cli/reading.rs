//! Reading records that are odd, in stores that fail, and requests as people have them.

use std::time::{Duration, SystemTime};

use idem_core::steps::StepBackend;
use idem_core::{Backend, Claim, Completion, Fenced, IdempotencyKey, RecordKey, Scope};
use idem_tests::in_time;

use super::records::{REQUEST, claim, complete, named, park, payment, take};
use super::settling::on_each_backend;
use super::{Store, on, run};

on_each_backend! {
    a_record_of_a_clock_that_was_far_ahead_is_shown
    a_list_has_no_version_that_does_not_match
    a_record_that_becomes_unreadable_is_watched
}

async fn a_record_of_a_clock_that_was_far_ahead_is_shown<B: Backend + StepBackend>(store: Store<B>) {
    let began_at = SystemTime::UNIX_EPOCH + Duration::from_millis(i64::MAX.unsigned_abs());
    let held = Claim { began_at, ..claim(1) };
    take(&store.backend, &payment("stored"), &held).await;
    for line in [
        &["list", "--json"][..],
        &["list"],
        &["show", &named("stored"), "--json"],
        &["show", &named("stored")],
        &["stats", "--json"],
        &["watch", "--looks", "1"],
    ] {
        store.idem(line).await.exits(0);
    }
    let shown = store.idem(&["show", &named("stored")]).await.exits(0);
    assert!(shown.out.contains("9999-12-31T23:59:59.999Z"), "{shown:#?}");
    store.idem_told(&["why", "--json"], REQUEST).await.exits(7);
}

async fn a_record_that_becomes_unreadable_is_watched<B: Backend + StepBackend>(store: Store<B>) {
    complete(&store.backend, &payment("stored"), 1, Completion::NotStored).await;
    let mut watch = store.watching(&["--json"]).await;
    store.plant_unreadable(&named("one")).await;
    let line = watch.out.next_line().await.expect("it runs").expect("a line");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(
        (&line["record"]["state"], &line["record"]["record"]),
        (&"unreadable".into(), &named("one").into())
    );
    watch.child.kill().await.expect("it runs");
}

async fn a_list_has_no_version_that_does_not_match<B: Backend + StepBackend>(store: Store<B>) {
    park(&store.backend, &payment("p"), 2).await;
    complete(&store.backend, &payment("k"), 1, Completion::Unknown).await;
    let list = store.idem(&["list", "--json"]).await.exits(0).json();
    let records = list[0]["records"].as_array().expect("records");
    assert_eq!(records.len(), 2);
    for record in records {
        let shown = store
            .idem(&["show", record["record"].as_str().expect("a key"), "--json"])
            .await;
        let shown = shown.exits(0).json();
        let has_steps = record["has_steps"] == true;
        assert_eq!(record.get("version").is_none(), has_steps, "{record}");
        assert!(has_steps || record["version"] == shown[0]["version"], "{record}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_natural_key_of_several_values_is_found() {
    in_time(async {
        let store = Store::sqlite().await;
        let natural = IdempotencyKey::tuple([IdempotencyKey::of("a"), IdempotencyKey::of(&7)]);
        let key = RecordKey::new("POST /payments", &Scope::of("acme"), &natural).expect("a valid key");
        complete(&store.backend, &key, 1, Completion::Unknown).await;
        let options = [
            "why",
            "--operation",
            "POST /payments",
            "--scope",
            "acme",
            "--natural-key",
            "(a,7)",
        ];
        let ran = store.idem_told(&options, REQUEST).await.exits(7);
        assert!(ran.out.contains("outcome-unknown"), "{ran:#?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_of_a_curl_command_are_read_or_refused_and_never_repeated() {
    in_time(async {
        let store = Store::sqlite().await;
        complete(&store.backend, &payment("k"), 1, Completion::Unknown).await;
        let lines = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(&lines, "idempotency-key: k\n\ncontent-type: application/json\n").expect("it can be written");
        let options = ["why", "--operation", "POST /payments", "--scope", "acme"];
        let curl = format!(
            "curl -d '{{\"amount\":1}}' -H @{} http://h/payments",
            lines.path().display()
        );
        let ran = store.idem_told(&options, &curl).await.exits(7);
        assert!(ran.out.contains("outcome-unknown"), "{ran:#?}");
        for words in [
            "curl http://h/a http://u:hunter2@h/b",
            "curl -Uu:hunter2 http://h/a",
            "curl --proxy-user=u:hunter2 http://h/a",
            "curl -H 'authorization hunter2' http://h/a",
            "curl -H @/no/such/file http://h/a",
        ] {
            let ran = store.idem_told(&options, words).await.exits(2);
            assert!(!ran.all().contains("hunter2"), "{ran:#?}");
        }
    })
    .await;
}

/// What of a handler has to be said so that the comparison is the service's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_compared_is_said_completely_or_the_command_says_what_is_missing() {
    in_time(async {
        let store = Store::sqlite().await;
        complete(&store.backend, &payment("stored"), 1, Completion::Unknown).await;
        let of = |operation| ["why", "--scope", "acme", "--value", "1", "--operation", operation];
        let tell = async |operation, more: &[&str]| store.idem_told(&[&of(operation), more].concat(), REQUEST).await;
        tell("PUT /orders/{id}", &[]).await.exits(2);
        tell("PUT /orders/{id}", &["--parameter", "7", "--parameter", "8"])
            .await
            .exits(2);
        tell("PUT /orders/{id}", &["--parameter", "7"]).await.exits(0);
        tell("layer PUT /orders/{id}", &[]).await.exits(2);
        tell("layer PUT /orders/{id}", &["--whole-path"]).await.exits(0);
        tell("orders", &[]).await.exits(0);
        // The service has a fingerprint key, and the operator does not name it, or has an editor that ends the last line.
        let key = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(&key, "secret\n").expect("it can be written");
        let key = key.path().display().to_string();
        let ran = store
            .idem_told(&["why", "--fingerprint-key", &key], REQUEST)
            .await
            .exits(7);
        assert!(
            ran.err.contains("line break") && ran.err.contains("another scheme"),
            "{ran:#?}"
        );
        let ran = store.idem_told(&["why"], REQUEST).await.exits(7);
        assert!(ran.err.is_empty(), "{ran:#?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_ends_with_its_reader_and_counts_the_looks_that_fail() {
    in_time(async {
        let mut store = Store::redis().await;
        let mut watch = store.watching(&[]).await;
        drop(watch.out);
        complete(&store.backend, &payment("a"), 1, Completion::Unknown).await;
        assert_eq!(watch.child.wait().await.expect("it ends").code(), Some(0));

        let mut watch = store.watching(&["--looks", "40", "--timeout", "1s"]).await;
        store.server().kill();
        let next = watch.err.next_line().await.expect("it runs").expect("a line");
        assert!(next.contains("looking again"), "{next}");
        assert_eq!(watch.child.wait().await.expect("it ends").code(), Some(1));
    })
    .await;
}

/// A claim that never expires may be live, whatever its lease says. It is removed by force, with its steps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_has_lost_its_expiry_is_forgotten_by_force_alone() {
    in_time(async {
        let mut store = Store::redis().await;
        take(&store.backend, &payment("plain"), &claim(1)).await;
        let held = claim(2);
        take(&store.backend, &payment("steps"), &held).await;
        let recorded = store
            .backend
            .record_step(&payment("steps"), &held, "charge", &bytes::Bytes::new())
            .await;
        assert_eq!(recorded.expect("the store answers"), Fenced::Applied);
        let mut connection = store.server().connection().await;
        for key in ["plain", "steps"] {
            let mut persist = ::redis::cmd("PERSIST");
            persist.arg(format!("idem:{{{}}}", named(key)));
            persist.exec_async(&mut connection).await.expect("PERSIST");
            let record = named(key);
            let list = store.idem(&["list", "--key", key, "--json"]).await.exits(0).json();
            let token = list[0]["records"][0]["version"].as_str().expect("a version").to_owned();
            store
                .idem(&["forget", &record, "--yes", "--reason", "x"])
                .await
                .exits(5);
            let force = ["forget", &record, "--token", &token, "--force", "--reason", "x"];
            store.idem(&force).await.exits(0);
            store.idem(&["show", &record]).await.exits(3);
        }
        let keys = ::redis::cmd("DBSIZE");
        let left: u64 = keys.query_async(&mut connection).await.expect("DBSIZE");
        assert_eq!(left, 0, "the steps are gone with the record");
    })
    .await;
}

/// A record whose row is locked fails, and the others of its scope are forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_record_that_fails_does_not_keep_the_others_of_its_scope() {
    in_time(async {
        let store = Store::postgres().await;
        for key in ["a", "b", "c"] {
            complete(&store.backend, &payment(key), 1, Completion::Unknown).await;
        }
        let (server, schema) = store.server();
        let lock = format!(
            "SELECT FROM {schema}.idem_records WHERE key = '{}' FOR UPDATE",
            named("b")
        );
        let holder = server.hold(&lock).await;
        let forget = ["forget-scope", "--scope", "acme", "--yes", "--reason", "x", "--json"];
        let ran = store.idem(&forget).await.exits(1);
        let count = &ran.json()[0];
        assert_eq!(
            (&count["forgotten"], &count["failed"]),
            (&2.into(), &1.into()),
            "{ran:#?}"
        );
        assert!(ran.err.contains(&named("b")), "{ran:#?}");
        drop(holder);
        let ran = store.idem(&forget).await.exits(0);
        assert_eq!(ran.json()[0]["forgotten"], 1, "{ran:#?}");
        // A store that is gone is not asked a thousand times.
        run(on("postgres://127.0.0.1:1/a", &forget), "").await.exits(1);
    })
    .await;
}

/// Somebody has written a time by hand of which no difference can be told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_without_an_end_does_not_hide_the_others() {
    in_time(async {
        let store = Store::postgres().await;
        complete(&store.backend, &payment("k"), 1, Completion::Unknown).await;
        complete(&store.backend, &payment("x"), 2, Completion::Unknown).await;
        take(&store.backend, &payment("y"), &claim(3)).await;
        let (server, schema) = store.server();
        for change in [
            "expires_at = 'infinity' WHERE key LIKE '%:x'",
            "lease_until = '-infinity', expires_at = 'infinity' WHERE key LIKE '%:y'",
        ] {
            server
                .execute(&format!("UPDATE {schema}.idem_records SET {change}"))
                .await;
        }
        let list = store.idem(&["list", "--json"]).await.exits(0).json();
        assert_eq!(list[0]["records"].as_array().map(Vec::len), Some(3), "{list:?}");
        for key in ["x", "y"] {
            store.idem(&["show", &named(key)]).await.exits(0);
            store
                .idem(&["forget", &named(key), "--yes", "--reason", "x"])
                .await
                .exits(0);
        }
        let left = store.idem(&["list", "--expect-none"]).await.exits(6);
        assert!(left.out.contains(&named("k")), "{left:#?}");
    })
    .await;
}

/// The operation as a log line's key has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_may_be_named_as_a_key_has_it_and_lost_steps_are_told() {
    in_time(async {
        let mut store = Store::redis().await;
        park(&store.backend, &payment("p"), 2).await;
        let list = store
            .idem(&["list", "--operation", "POST%20/payments", "--json"])
            .await
            .exits(0)
            .json();
        assert_eq!(list[0]["records"].as_array().map(Vec::len), Some(1), "{list:?}");
        let mut del = ::redis::cmd("DEL");
        del.arg(format!("idem:{{{}}}:s", named("p")));
        del.exec_async(&mut store.server().connection().await)
            .await
            .expect("DEL");
        let request = REQUEST.replace(": stored", ": p");
        for ran in [
            store.idem(&["show", &named("p")]).await,
            store.idem_told(&["why"], &request).await,
        ] {
            assert!(ran.exits(0).err.contains("has lost them"));
        }
        // Steps that cannot be read: the record is neither forgotten nor said to be.
        let mut set = ::redis::cmd("SET");
        set.arg(format!("idem:{{{}}}:s", named("p"))).arg("x");
        set.exec_async(&mut store.server().connection().await)
            .await
            .expect("SET");
        let forget = ["forget-scope", "--scope", "acme", "--yes", "--reason", "x", "--json"];
        let ran = store.idem(&forget).await.exits(1);
        assert_eq!(ran.json()[0]["failed"], 1, "{ran:#?}");
    })
    .await;
}
