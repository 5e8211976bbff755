//! Command lines that must not have their way: names that no backend takes, values that would be stored as others.

use idem_core::Completion;
use idem_tests::in_time;

use super::records::{complete, key_of, named, payment, version};
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
