//! The exit codes: each one is provoked, and nothing else ends a command.

use idem_tests::in_time;

use super::records::{REQUEST, fill, named, version};
use super::{Store, on, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_exit_code_has_its_cause() {
    in_time(async {
        let store = Store::sqlite().await;
        fill(&store).await;
        let [stored, in_flight, absent] = ["stored", "in-flight", "absent"].map(named);
        let because = ["--reason", "x"];
        store.idem(&["list"]).await.exits(0);
        store.idem_told(&["why"], REQUEST).await.exits(0);
        Store::sqlite().await.idem(&["doctor"]).await.exits(0);
        // The port of nobody, and a file without the table.
        let nobody = ["list", "--timeout", "5s"];
        run(on("redis://127.0.0.1:1/", &nobody), "").await.exits(1);
        run(on("postgres://127.0.0.1:1/a", &nobody), "").await.exits(1);
        store.idem(&["list", "--table", "other"]).await.exits(1);
        for line in [
            &["lsit"][..],
            &[],
            &["show"],
            &["show", "k-1"],
            &["show", &stored, "--key", "k"],
            &["forget", &stored, "--yes"],
            &["forget", &stored, "--yes", "--reason", "x", "--token", "completed-1"],
            &["resolve", &stored, "--yes", "--reason", "x"],
            &["resolve", &stored, "--yes", "--reason", "x", "--unknown", "--rerun"],
            &[
                "resolve",
                &stored,
                "--yes",
                "--reason",
                "x",
                "--status",
                "200",
                "--body",
                "@/nowhere",
            ],
            &[
                "resolve", &stored, "--yes", "--reason", "x", "--status", "200", "--ttl", "0s",
            ],
            &["list", "--limit", "0"],
            &["forget-scope", "--yes", "--reason", "x"],
            &["why", "/nowhere"],
            &["list", "--prefix", "p"],
            &["list", "--table", "a b"],
            &["list", "--after", "no cursor"],
        ] {
            let ran = store.idem(line).await;
            assert_eq!(ran.code, 2, "{line:?}: {ran:#?}");
            assert!(!ran.err.is_empty() && ran.out.is_empty(), "{line:?}: {ran:#?}");
        }
        for url in [
            "",
            "http://127.0.0.1/",
            "sqlite:/nowhere/idem.db",
            "redis://[",
            "sqlite:/nowhere/idem.db?mode=ro",
            "postgres://[",
        ] {
            let ran = run(on(url, &["list"]), "").await;
            assert_eq!(ran.code, 2, "{url:?}: {ran:#?}");
        }
        store.idem(&["show", &absent]).await.exits(3);
        store
            .idem(&[&["forget", &absent, "--yes"][..], &because].concat())
            .await
            .exits(3);
        let older = version("claimed", 1);
        store
            .idem(&[&["forget", &stored, "--token", &older][..], &because].concat())
            .await
            .exits(4);
        store
            .idem(&[&["forget", &in_flight, "--yes"][..], &because].concat())
            .await
            .exits(5);
        store.idem_told(&["why"], &REQUEST.replace(":1}", ":2}")).await.exits(7);
        // An unreadable record.
        let ran = store.idem(&["doctor"]).await.exits(6);
        assert!(ran.out.contains("failing"), "{ran:#?}");
    })
    .await;
}

/// The three places that list them agree.
#[test]
fn the_page_has_the_exit_codes_of_the_help() {
    let page = include_str!("../../../docs/cli.md");
    let help = include_str!("golden/help.txt");
    for code in 0..=7 {
        assert!(page.contains(&format!("| {code} |")), "docs/cli.md has no code {code}");
        assert!(help.contains(&format!("\n  {code}  ")), "the help has no code {code}");
    }
}

/// `doctor` on each kind of store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_has_each_check_of_the_doctor() {
    in_time(async {
        let page = include_str!("../../../docs/cli.md");
        let row = |store: &str| {
            page.lines()
                .rfind(|line| line.starts_with(&format!("| {store} | `")))
                .expect("a row")
        };
        for (store, ran) in [
            ("Redis", Store::redis().await.idem(&["doctor", "--json"]).await),
            ("Postgres", Store::postgres().await.idem(&["doctor", "--json"]).await),
            ("SQLite", Store::sqlite().await.idem(&["doctor", "--json"]).await),
        ] {
            let findings = &ran.json()[0]["findings"];
            let checks: Vec<_> = findings
                .as_array()
                .expect("findings")
                .iter()
                .map(|finding| finding["check"].as_str())
                .collect();
            for check in checks.iter().map(|check| check.expect("a name")) {
                assert!(
                    row(store).contains(&format!("`{check}`")),
                    "{store}: {check} of {checks:?}"
                );
            }
        }
    })
    .await;
}

/// What belongs to another outcome would be ignored, and the record changed all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_of_two_outcomes_change_nothing() {
    in_time(async {
        let store = Store::sqlite().await;
        fill(&store).await;
        let record = named("parked");
        let before = store.idem(&["show", &record, "--json"]).await.exits(0);
        for options in [
            &["--rerun", "--ttl", "1h"][..],
            &["--rerun", "--done", "1"],
            &["--rerun", "--not-done"],
            &["--rerun", "--overwrite"],
            &["--rerun", "--body", "x"],
            &["--unknown", "--header", "a: b"],
            &["--unknown", "--body", "x"],
            &["--unknown", "--done", "1"],
            &["--status", "200", "--done", "1"],
            &["--status", "200", "--not-done"],
            &["--result", "1", "--header", "a: b"],
            &["--step", "charge", "--done", "1", "--body", "x"],
            &["--step", "new", "--not-done", "--new-step"],
        ] {
            let line = [&["resolve", &record, "--yes", "--reason", "x"], options].concat();
            let ran = store.idem(&line).await.exits(2);
            assert!(ran.out.is_empty() && !ran.err.contains("has settled"), "{ran:#?}");
        }
        let after = store.idem(&["show", &record, "--json"]).await.exits(0);
        assert_eq!(before.json()[0]["version"], after.json()[0]["version"]);
    })
    .await;
}
