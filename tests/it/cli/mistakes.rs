//! Command lines that must not have their way: names that no backend takes, values that would be stored as others, files that are none of
//! idem's.

use idem_core::Completion;
use idem_tests::in_time;

use super::records::{REQUEST, complete, key_of, named, payment, version};
use super::{Store, on, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_that_only_idem_sends_is_refused() {
    in_time(async {
        let store = Store::sqlite().await;
        complete(&store.backend, &payment("k"), 1, Completion::Unknown).await;
        let record = named("k");
        for line in [
            "idempotent-replayed: true",
            "Idempotency-Code: in-flight",
            "a b: c",
            "no colon",
        ] {
            let words = [
                "resolve", &record, "--yes", "--reason", "x", "--status", "200", "--header", line,
            ];
            let ran = store.idem(&words).await.exits(2);
            assert!(!ran.err.contains("has settled"), "{ran:#?}");
        }
        let shown = store.idem(&["show", &record]).await.exits(0);
        assert!(
            shown.out.contains(&version("completed", 1)),
            "nothing was changed: {shown:#?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_option_makes_it_panic_or_settles_without_a_reason() {
    in_time(async {
        let store = Store::sqlite().await;
        complete(&store.backend, &payment("k"), 1, Completion::Unknown).await;
        let empty = tempfile::NamedTempFile::new().expect("a temporary file");
        let empty = empty.path().display().to_string();
        let long = "s".repeat(32);
        let (record, request) = (named("k"), "POST /payments HTTP/1.1\nidempotency-key: k\n\n");
        let schema = run(on("postgres://127.0.0.1:1/a", &["list", "--schema", &long]), "").await;
        let more = [
            store.idem_told(&["why", "--fingerprint-key", &empty], request).await,
            store.idem(&["forget", &record, "--yes", "--reason", " "]).await,
            store
                .idem(&["forget-scope", "--scope", "acme", "--yes", "--reason", ""])
                .await,
            store.idem(&["watch", "--every", "0s"]).await,
        ];
        for ran in [schema].into_iter().chain(more) {
            assert!(ran.code == 2 && !ran.err.contains("panicked"), "{ran:#?}");
        }
        store.idem(&["show", &record]).await.exits(0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_is_kept_to_its_last_digit() {
    in_time(async {
        let store = Store::redis().await;
        let key = key_of("task ship", "o-1");
        complete(&store.backend, &key, 1, Completion::Unknown).await;
        let result = "{\"b\": 12345678901234567890123, \"a\": 1.10}";
        let words = ["resolve", key.as_str(), "--yes", "--result", result, "--reason", "x"];
        store.idem(&words).await.exits(0);
        let shown = store.idem(&["show", key.as_str(), "--reveal"]).await.exits(0);
        assert!(shown.out.contains(result), "{shown:#?}");
    })
    .await;
}

/// A command that shows records must not change the file of another application.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_not_a_store_is_not_changed() {
    in_time(async {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("empty.db"), "").expect("it can be written");
        std::fs::write(path("text.db"), "no database, and longer than a header").expect("it can be written");
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(path("other.db"))
            .create_if_missing(true);
        let mut other = sqlx::ConnectOptions::connect(&options).await.expect("a database");
        sqlx::query("CREATE TABLE other (a)")
            .execute(&mut other)
            .await
            .expect("a table");
        sqlx::Connection::close(other).await.expect("it is written");
        for name in ["empty.db", "text.db", "other.db"] {
            let before = std::fs::read(path(name)).expect("it is there");
            for command in [
                &["list"][..],
                &["doctor"],
                &["forget", "a:b:c", "--yes", "--reason", "x"],
            ] {
                run(on(&path(name).display().to_string(), command), "").await.exits(2);
            }
            assert!(
                std::fs::read(path(name)).expect("it is there") == before,
                "{name} was changed"
            );
        }
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("a folder").count(),
            3,
            "no log beside them"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_in_the_place_of_a_file_is_not_repeated() {
    in_time(async {
        let store = Store::sqlite().await;
        complete(&store.backend, &payment("k"), 1, Completion::Unknown).await;
        let (url, record) = ("redis://u:hunter2@h/0", named("k"));
        let at = format!("@{url}");
        for line in [
            &["why", url][..],
            &["why", "--against", url],
            &["why", "--fingerprint-key", url],
            &[
                "resolve", &record, "--yes", "--reason", "x", "--status", "200", "--body", &at,
            ],
        ] {
            let ran = store.idem_told(line, REQUEST).await.exits(2);
            assert!(!ran.all().contains("hunter2"), "{ran:#?}");
        }
        for option in ["-d", "-H"] {
            let curl = format!("curl http://h/payments {option} {at}");
            let ran = store.idem_told(&["why"], &curl).await.exits(2);
            assert!(!ran.all().contains("hunter2"), "{ran:#?}");
        }
    })
    .await;
}
