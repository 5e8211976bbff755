//! Changes: fenced by what was shown, refused for live claims, forced, logged, and noticed by those who wait.

use axum::Router;
use axum::http::StatusCode;
use idem_core::steps::StepBackend;
use idem_core::{Backend, Completion, Fenced};
use idem_tests::{Order, Service, in_time};

use super::records::{claim, complete, lapse, named, park, payment, take, take_with_steps, version};
use super::{Ran, Store, on, run};

/// Runs the test on each backend.
macro_rules! on_each_backend {
    ($($test:ident)*) => {
        mod redis { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                idem_tests::in_time(async { super::$test(super::Store::redis().await).await }).await;
            }
        )* }
        mod sqlite { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                idem_tests::in_time(async { super::$test(super::Store::sqlite().await).await }).await;
            }
        )* }
        mod postgres { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                idem_tests::in_time(async { super::$test(super::Store::postgres().await).await }).await;
            }
        )* }
    };
}
pub(super) use on_each_backend;

on_each_backend! {
    an_older_version_and_a_live_claim_are_refused_and_force_supersedes_the_owner
    of_two_operators_one_settles_the_record
    without_a_terminal_nothing_is_changed_that_was_not_named
    a_record_that_cannot_be_read_is_forgotten_by_force_alone
    a_record_that_cannot_be_read_is_found_by_the_hashes_of_a_log
    a_stale_version_is_told_before_what_is_asked_for_is_judged
}

async fn an_older_version_and_a_live_claim_are_refused_and_force_supersedes_the_owner<B: Backend + StepBackend>(
    store: Store<B>,
) {
    let key = payment("k");
    let held = claim(1);
    take(&store.backend, &key, &held).await;
    let record = named("k");
    let forget = |more: &[&'static str]| {
        let words = ["forget", &record, "--reason", "r"].map(str::to_owned);
        let words: Vec<_> = words
            .into_iter()
            .chain(more.iter().map(|&word| word.to_owned()))
            .collect();
        words
    };
    let before = store.backend.read(&key).await.expect("the store answers");
    assert!(before.is_some());
    for (more, code) in [
        (&["--token", "claimed-09090909090909090909090909090909"][..], 4),
        (&["--token", "completed-01010101010101010101010101010101", "--force"], 4),
        (&["--token", "claimed-01010101010101010101010101010101"], 5),
        (&["--yes"], 5),
    ] {
        let words = forget(more);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let ran = store.idem(&words).await.exits(code);
        assert!(!ran.err.contains("an operator has settled"), "{ran:#?}");
        let there = store.backend.read(&key).await.expect("the store answers");
        assert!(there.is_some(), "{more:?}");
    }
    let resolved = store
        .idem(&["resolve", &record, "--rerun", "--reason", "r", "--yes", "--force"])
        .await;
    resolved.exits(0);
    let late = store
        .backend
        .complete(&key, &held, &Completion::NotStored, held.ttl)
        .await;
    assert_eq!(late.expect("the store answers"), Fenced::Superseded);
}

async fn of_two_operators_one_settles_the_record<B: Backend + StepBackend>(store: Store<B>) {
    for round in 1..=4 {
        let name = format!("k{round}");
        complete(&store.backend, &payment(&name), round, Completion::Unknown).await;
        let (record, token) = (named(&name), version("completed", round));
        let forget = ["forget", &record, "--token", &token, "--reason", "no"];
        let resolve = [
            "resolve", &record, "--status", "204", "--token", &token, "--reason", "yes",
        ];
        let (one, other) = tokio::join!(store.idem(&forget), store.idem(&resolve));
        let mut codes = [one.code, other.code];
        codes.sort_unstable();
        // The second one finds another record, or none.
        assert!(matches!(codes, [0, 3 | 4]), "{one:#?} {other:#?}");
        let there = store.backend.read(&payment(&name)).await.expect("the store answers");
        assert_eq!(there.is_some(), other.code == 0, "{one:#?} {other:#?}");
    }
}

async fn without_a_terminal_nothing_is_changed_that_was_not_named<B: Backend + StepBackend>(store: Store<B>) {
    complete(&store.backend, &payment("k"), 1, Completion::Unknown).await;
    park(&store.backend, &payment("p"), 2).await;
    let [done, parked] = ["k", "p"].map(named);
    for line in [
        &["forget", &done, "--reason", "r"][..],
        &["resolve", &done, "--status", "200", "--reason", "r"],
        &["resolve", &parked, "--rerun", "--reason", "r", "--json"],
        &["forget-scope", "--scope", "acme", "--yes"],
    ] {
        let answers = store.idem_told(line, "y\n").await.exits(2);
        assert_eq!(answers.out, "", "{line:?}");
    }
    store.idem(&["forget-scope", "--scope", "acme"]).await.exits(0);
    for (key, phase, number) in [("k", "completed", 1), ("p", "parked", 2)] {
        let shown = store.idem(&["show", &named(key), "--json"]).await.exits(0).json();
        let shown = shown[0]["version"].as_str().expect("text").to_owned();
        // A record with steps has their digest behind it.
        assert!(shown.starts_with(&version(phase, number)), "{shown}");
    }
}

async fn a_record_that_cannot_be_read_is_forgotten_by_force_alone<B: Backend + StepBackend>(store: Store<B>) {
    complete(&store.backend, &payment("stored"), 1, Completion::NotStored).await;
    let names = ["one", "other", "third"].map(named);
    for name in &names {
        store.plant_unreadable(name).await;
    }
    let count = async || {
        let list = store.idem(&["list", "--state", "unreadable", "--json"]).await.exits(0);
        list.json()[0]["records"].as_array().expect("records").clone()
    };
    let found = count().await;
    assert_eq!(found.len(), 3, "{found:?}");
    let record = names[0].as_str();
    let found = found
        .iter()
        .find(|found| found["record"] == record)
        .expect("it is listed");
    let token = found["version"].as_str().expect("a version").to_owned();
    let shown = store.idem(&["show", record]).await.exits(1);
    assert!(
        shown.err.contains(&token) && shown.err.contains("--force"),
        "{shown:#?}"
    );
    let because = ["--reason", "written by a version that was rolled back"];
    let tell = async |line: &[&str], code| {
        let ran = store.idem(&[line, &because].concat()).await.exits(code);
        (count().await.len(), ran)
    };
    // Another record's version, no force, another change, no version and nobody to ask.
    let other = version("unreadable", 9);
    for (line, code) in [
        (&["forget", record, "--token", &other, "--force"][..], 4),
        (&["forget", record, "--token", &token], 5),
        (&["forget", record, "--yes"], 5),
        (&["resolve", record, "--rerun", "--token", &token, "--force"], 1),
        (&["forget", record, "--force"], 2),
        (&["forget-scope", "--scope", "acme"], 0),
    ] {
        let (left, ran) = tell(line, code).await;
        assert_eq!(left, 3, "{ran:#?}");
    }
    let (left, ran) = tell(&["forget", record, "--token", &token, "--force"], 0).await;
    assert!(left == 2 && ran.err.contains("an operator has settled"), "{ran:#?}");
    assert_eq!(tell(&["forget", &names[1], "--yes", "--force"], 0).await.0, 1);
    // Without force, the others of its scope are forgotten, and the code says that not all are.
    assert_eq!(tell(&["forget-scope", "--scope", "acme", "--yes"], 1).await.0, 1);
    assert_eq!(
        tell(&["forget-scope", "--scope", "acme", "--yes", "--force"], 0)
            .await
            .0,
        0
    );
    tell(&["forget", record, "--token", &token, "--force"], 3).await;
    // A later request with the key has no step of it.
    let key = payment("one");
    take_with_steps(&store.backend, &key, 3, &[("mail", bytes::Bytes::new())]).await;
    let shown = store.idem(&["show", record, "--json"]).await.exits(0).json();
    let steps = shown[0]["steps"].as_array().expect("steps");
    assert!(steps.len() == 1 && steps[0]["name"] == "mail", "{shown:?}");
    let token = shown[0]["version"].as_str().expect("a version").to_owned();
    tell(&["forget", record, "--token", &token, "--force"], 0).await;
}

async fn a_stale_version_is_told_before_what_is_asked_for_is_judged<B: Backend + StepBackend>(store: Store<B>) {
    park(&store.backend, &payment("p"), 2).await;
    let record = named("p");
    let shown = store.idem(&["show", &record, "--json"]).await.exits(0).json();
    let token = shown[0]["version"].as_str().expect("a version").to_owned();
    let tell = [
        "resolve", &record, "--token", &token, "--reason", "r", "--step", "charge",
    ];
    let done = [&tell[..], &["--done", "\"ch_1\""]].concat();
    store.idem(&done).await.exits(0);
    // The other operator has seen the record as it was.
    store.idem(&done).await.exits(4);
    let changed = store
        .idem(&[&tell[..], &["--not-done", "--json"]].concat())
        .await
        .exits(4);
    assert_eq!(changed.json()[0]["result"], "changed", "{changed:#?}");
    // Force takes a live claim, and does not write over a step.
    let yes = [
        "resolve",
        &record,
        "--yes",
        "--reason",
        "r",
        "--step",
        "charge",
        "--not-done",
    ];
    store.idem(&[&yes[..], &["--force"]].concat()).await.exits(2);
    store.idem(&[&yes[..], &["--overwrite"]].concat()).await.exits(0);
}

async fn a_record_that_cannot_be_read_is_found_by_the_hashes_of_a_log<B: Backend + StepBackend>(store: Store<B>) {
    complete(&store.backend, &payment("stored"), 1, Completion::NotStored).await;
    store.plant_unreadable(&named("one")).await;
    let list = store
        .idem(&["list", "--hash-keys", "--state", "unreadable", "--json"])
        .await
        .exits(0)
        .json();
    let hashed = list[0]["records"][0]["record"].as_str().expect("hashes").to_owned();
    assert!(!hashed.contains("one"), "{hashed}");
    store.idem(&["show", &hashed]).await.exits(1);
    store
        .idem(&["forget", &hashed, "--yes", "--reason", "x"])
        .await
        .exits(5);
    store
        .idem(&["forget", &hashed, "--yes", "--force", "--reason", "x"])
        .await
        .exits(0);
    store.idem(&["show", &named("one")]).await.exits(3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_without_its_result_is_given_one_and_a_new_step_has_a_name_that_a_handler_can_have() {
    in_time(async {
        let store = Store::sqlite().await;
        // Done, without its result: docs/formats.md.
        let kept = bytes::Bytes::from_static(b"\x01\x03\0\0\0\x01\0");
        let claim = take_with_steps(&store.backend, &payment("k"), 1, &[("ledger", kept)]).await;
        let parked = store
            .backend
            .park(&payment("k"), &claim)
            .await
            .expect("the store answers");
        assert_eq!(parked, Fenced::Applied);
        let record = named("k");
        let resolve = ["resolve", &record, "--yes", "--reason", "r", "--step"];
        store
            .idem(&[&resolve[..], &["ledger", "--not-done"]].concat())
            .await
            .exits(2);
        let stops = store
            .idem(&["resolve", &record, "--yes", "--reason", "r", "--rerun"])
            .await
            .exits(0);
        assert!(stops.err.contains("--step ledger --done JSON"), "{stops:#?}");
        store
            .idem(&[&resolve[..], &["ledger", "--done", "7"]].concat())
            .await
            .exits(0);
        for (name, code) in [("send mail", 2), ("", 2), ("mail", 0)] {
            store
                .idem(&[&resolve[..], &[name, "--done", "null", "--new-step"]].concat())
                .await
                .exits(code);
        }
        let shown = store.idem(&["show", &record, "--json"]).await.exits(0).json();
        assert_eq!(shown[0]["steps"].as_array().map(Vec::len), Some(2), "{shown:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_line_names_the_operator_and_the_reason() {
    in_time(async {
        let store = Store::sqlite().await;
        for number in 1..=3 {
            complete(
                &store.backend,
                &payment(&number.to_string()),
                number,
                Completion::Unknown,
            )
            .await;
        }
        lapse(&store.backend, &payment("4"), 4).await;
        let says = |ran: &Ran, words: &[&str]| {
            assert_eq!(
                ran.err.matches("an operator has settled a record").count(),
                1,
                "{ran:#?}"
            );
            for word in words {
                assert!(ran.err.contains(word), "{word}: {ran:#?}");
            }
        };
        let reason = "ticket 4711";
        let ran = store.idem(&["forget", &named("1"), "--yes", "--reason", reason]).await;
        says(
            &ran,
            &[
                "operator=\"ada@desk\"",
                "reason=\"ticket 4711\"",
                "change=\"forget\"",
                &named("1"),
            ],
        );
        let ran = store
            .idem(&[
                "resolve",
                &named("2"),
                "--unknown",
                "--yes",
                "--reason",
                reason,
                "--as",
                "bob",
            ])
            .await;
        says(
            &ran,
            &[
                "operator=\"bob\"",
                "reason=\"ticket 4711\"",
                "change=\"complete\"",
                "forced=false",
            ],
        );
        let ran = store
            .idem(&[
                "forget-scope",
                "--scope",
                "acme",
                "--state",
                "lapsed",
                "--yes",
                "--reason",
                reason,
            ])
            .await;
        says(
            &ran,
            &[
                "operator=\"ada@desk\"",
                "reason=\"ticket 4711\"",
                "change=\"forget\"",
                &named("4"),
            ],
        );
        let mut command = store.command(&["forget", &named("3"), "--yes", "--reason", reason]);
        command.env_remove("IDEM_OPERATOR").env("USER", "eve");
        says(&run(command, "").await, &["operator=\"eve@"]);
    })
    .await;
}

/// A forged line would need a line break.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reason_cannot_forge_a_log_line() {
    in_time(async {
        let store = Store::sqlite().await;
        complete(&store.backend, &payment("k"), 1, Completion::Unknown).await;
        let reason = "x\n2026-01-01T00:00:00Z  WARN forged\u{1b}[2J";
        let ran = store
            .idem(&["forget", &named("k"), "--yes", "--reason", reason])
            .await
            .exits(0);
        assert_eq!(ran.err.lines().count(), 1, "{ran:#?}");
        assert!(!ran.err.contains('\u{1b}'), "{ran:#?}");
    })
    .await;
}

/// The lease is five minutes: those who wait are not told by its end.
async fn a_waiting_request_gets_the_operators_answer(service: Service, url: String, schema: Option<String>) {
    let order = Order::new("o").held();
    let client = &service.client;
    let send = || tokio::spawn(client.order_at("/orders/waiting-long", "k", &order).send());
    let first = send();
    service.app.wait_until_started(1).await;
    let waiting = [send(), send()];
    let mut command = on(
        &url,
        &["resolve", "POST /orders/waiting-long:acme:k", "--status", "202"],
    );
    command.args(["--body", "by hand", "--force", "--yes", "--reason", "stuck"]);
    command.envs(schema.map(|schema| ("IDEM_SCHEMA", schema)));
    run(command, "").await.exits(0);
    for waiting in waiting {
        let answer = waiting.await.expect("no panic");
        assert_eq!((answer.status, answer.text()), (StatusCode::ACCEPTED, "by hand"));
        assert!(answer.is_replay());
    }
    service.app.open_gate();
    // The handler's own answer is not recorded; its client gets what it did.
    let first = first.await.expect("no panic");
    assert!(!first.is_replay(), "{first:?}");
    let later = client.order_at("/orders/waiting-long", "k", &order).send().await;
    assert_eq!((later.status, later.text()), (StatusCode::ACCEPTED, "by hand"));
    assert_eq!(service.app.executions("o"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_request_gets_the_operators_answer_on_redis() {
    in_time(async {
        let service = Service::redis(Router::new()).await;
        let url = service.redis.as_ref().expect("its server").url();
        a_waiting_request_gets_the_operators_answer(service, url, None).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_request_gets_the_operators_answer_on_sqlite() {
    in_time(async {
        let service = Service::sqlite(Router::new()).await;
        let url = service.sqlite.as_ref().expect("its file").url();
        a_waiting_request_gets_the_operators_answer(service, url, None).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_request_gets_the_operators_answer_on_postgres() {
    in_time(async {
        let server = idem_tests::PostgresServer::shared().await;
        let (backend, schema) = server.backend().await;
        let service = Service::start(backend, Router::new(), None).await;
        a_waiting_request_gets_the_operators_answer(service, server.url(), Some(schema)).await;
    })
    .await;
}
