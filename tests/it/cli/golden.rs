//! The output of every command, word for word.
//!
//! The files in `golden` have it. `IDEM_BLESS=1 cargo test -p idem-tests --test it cli::golden` writes them anew; then read the
//! difference.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use idem_core::steps::StepBackend;
use idem_core::{Backend, Completion};
use idem_tests::in_time;
use tokio::io::{BufReader, Lines};
use tokio::process::ChildStdout;

use super::normal::normal;
use super::records::{REQUEST, complete, fill, named, park, payment};
use super::{Ran, Store, Watching, on, run};

/// Compares what was printed with the file, or writes the file.
#[track_caller]
fn compare(name: &str, printed: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("it/cli/golden/{name}.txt"));
    if std::env::var_os("IDEM_BLESS").is_some() {
        fs::write(&file, printed).expect("the file can be written");
    }
    let golden = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(printed, golden, "{name}: IDEM_BLESS=1 writes the file anew");
}

/// A command line, and what it has printed.
fn scene(arguments: &[&str], ran: &Ran, normalize: impl Fn(&str) -> String) -> String {
    let line = arguments.iter().fold(String::new(), |mut line, argument| {
        let quote = if argument.contains(' ') { "'" } else { "" };
        // Writing to a `String` does not fail.
        let _ = write!(line, " {quote}{argument}{quote}");
        line
    });
    let mut text = format!("$ idem{line}\n{}", normalize(&ran.out));
    if !ran.err.is_empty() {
        text.push_str("--- standard error\n");
        let err = normalize(&ran.err);
        // Some records are settled at the same time, and each leaves a line.
        let (mut logged, noted): (Vec<_>, Vec<_>) = err.lines().partition(|line| line.contains(" WARN "));
        logged.sort_unstable();
        for line in noted.iter().chain(&logged) {
            let _ = writeln!(text, "{line}");
        }
    }
    let _ = writeln!(text, "--- exit code {}\n", ran.code);
    text
}

/// Runs the commands one after another.
async fn play<B: Backend + StepBackend>(store: &Store<B>, lines: &[&[&str]]) -> String {
    let mut text = String::new();
    for arguments in lines {
        text += &scene(arguments, &store.idem(arguments).await, normal);
    }
    text
}

/// The same on Redis and on SQLite.
async fn reads<B: Backend + StepBackend>(store: Store<B>) {
    fill(&store).await;
    let lists = play(
        &store,
        &[
            &["list"],
            &["list", "--state", "unknown", "--state", "not-stored"],
            &["list", "--operation", "task ship"],
            &["list", "--scope", "nobody"],
            &["list", "--younger-than", "1h"],
            &["list", "--hash-keys", "--state", "parked"],
            &["list", "--color", "always", "--state", "lapsed"],
            &["list", "--json", "--key", "parked"],
            &["list", "--json", "--state", "stored", "--operation", "POST /payments"],
        ],
    )
    .await;
    compare("list", &lists);
    let mut shows = String::new();
    for key in [
        "stored",
        "in-flight",
        "lapsed",
        "steps",
        "parked",
        "unknown",
        "not-stored",
        "absent",
    ] {
        shows += &play(&store, &[&["show", &named(key)]]).await;
    }
    shows += &play(&store, &[&["show", "task ship:acme:order-7"]]).await;
    compare("show", &shows);
    let [stored, steps] = [named("stored"), named("steps")];
    let revealed = play(
        &store,
        &[
            &["show", &stored, "--reveal"],
            &["show", &steps, "--reveal"],
            &["show", &stored, "--json"],
            &["show", &stored, "--json", "--reveal"],
            &["show", &steps, "--json", "--reveal"],
            &["show", "task ship:acme:order-7", "--json", "--reveal"],
            &[
                "show",
                "--hash-keys",
                "--operation",
                "POST /payments",
                "--scope",
                "acme",
                "--key",
                "unknown",
            ],
        ],
    )
    .await;
    compare("show_reveal", &revealed);
    let counts = play(&store, &[&["stats", "--json"], &["watch", "--looks", "1"]]).await;
    compare("stats", &counts);
    let stats = store.idem(&["stats"]).await.exits(0);
    compare("stats_table", &normal(&stats.out));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_prints_what_it_did_on_sqlite() {
    in_time(async { reads(Store::sqlite().await).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_prints_what_it_did_on_redis() {
    in_time(async { reads(Store::redis().await).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settling_prints_what_it_did() {
    in_time(async {
        let store = Store::redis().await;
        fill(&store).await;
        let because = ["--reason", "ticket 4711"];
        let forget = |key: &str, more: &[&'static str]| {
            let mut words = vec!["forget".to_owned(), named(key)];
            words.extend(because.iter().chain(more).map(|&word| word.to_owned()));
            words
        };
        let resolve = |key: &str, more: &[&str]| {
            let mut words = vec!["resolve".to_owned(), named(key)];
            words.extend(more.iter().chain(&because).map(|&word| word.to_owned()));
            words.push("--yes".to_owned());
            words
        };
        let mut text = String::new();
        let lines = [
            forget("unknown", &["--token", "completed-06060606060606060606060606060606"]),
            forget("unknown", &["--yes"]),
            forget("in-flight", &["--yes"]),
            forget("in-flight", &["--yes", "--force"]),
            forget("not-stored", &["--token", "claimed-07070707070707070707070707070707"]),
            forget("not-stored", &[]),
            resolve(
                "not-stored",
                &["--status", "201", "--header", "x-by: hand", "--body", "{}"],
            ),
            resolve("lapsed", &["--unknown"]),
            resolve("lapsed", &["--unknown", "--json"]),
            resolve("parked", &["--step", "charge", "--not-done"]),
            resolve("parked", &["--step", "charge", "--done", "1"]),
            resolve("parked", &["--rerun", "--json"]),
            resolve("steps", &["--step", "charge", "--done", "{\"id\": 7}"]),
            resolve("steps", &["--step", "charge", "--done", "{\"id\": 7}", "--force"]),
            resolve("stored", &["--result", "1"]),
            resolve("stored", &["--rerun"]),
            vec!["show".to_owned(), named("not-stored")],
            vec!["show".to_owned(), named("steps")],
        ];
        for line in lines {
            let words: Vec<_> = line.iter().map(String::as_str).collect();
            text += &play(&store, &[&words]).await;
        }
        compare("settle", &text);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_and_a_scope_are_settled_as_they_were() {
    in_time(async {
        let store = Store::sqlite().await;
        fill(&store).await;
        let text = play(
            &store,
            &[
                &[
                    "resolve",
                    "task ship:acme:order-7",
                    "--result",
                    "{\"by\": \"hand\"}",
                    "--reason",
                    "lost",
                    "--yes",
                ],
                &["show", "task ship:acme:order-7", "--reveal"],
                &["forget-scope", "--scope", "acme"],
                &["forget-scope", "--scope", "acme", "--json"],
                &["forget-scope", "--scope", "acme", "--yes"],
                &[
                    "forget-scope",
                    "--scope",
                    "acme",
                    "--state",
                    "parked",
                    "--yes",
                    "--reason",
                    "left",
                    "--json",
                ],
                &["forget-scope", "--scope", "acme", "--yes", "--reason", "left"],
                &[
                    "forget-scope",
                    "--scope",
                    "acme",
                    "--yes",
                    "--reason",
                    "left",
                    "--force",
                ],
                &["list"],
            ],
        )
        .await;
        compare("forget_scope", &text);
    })
    .await;
}

/// Each forecast, of the request in a file, as words of `curl`, and against another request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forecasts_are_worded_as_they_were() {
    in_time(async {
        let store = Store::redis().await;
        fill(&store).await;
        let of = |key: &str| REQUEST.replace(": stored", &format!(": {key}"));
        let other = REQUEST.replace(":1}", ":2}");
        let curl = "curl https://shop/payments -H 'content-type: application/json' -H 'idempotency-key: stored' -d '{\"amount\": 1}'";
        let scenes: [(&[&str], String); 16] = [
            (&["why"], of("fresh")),
            (&["why", "--scope", "acme"], of("fresh")),
            (&["why"], REQUEST.to_owned()),
            (&["why", "--json"], REQUEST.to_owned()),
            (&["why"], curl.to_owned()),
            (&["why"], other.clone()),
            (&["why", "--json"], other),
            (&["why"], of("in-flight")),
            (&["why", "--in-flight", "wait"], of("in-flight")),
            (&["why", "--in-flight", "accept"], of("in-flight")),
            (&["why"], of("lapsed")),
            (&["why", "--after-crash-refuse"], of("lapsed")),
            (&["why"], of("parked")),
            (&["why"], of("unknown")),
            (&["why"], of("not-stored")),
            (&["why", "--optional"], REQUEST.replace("idempotency-key: stored\r\n", "")),
        ];
        let mut text = String::new();
        for (arguments, request) in scenes {
            text += &scene(arguments, &store.idem_told(arguments, &request).await, normal);
        }
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("other.http");
        fs::write(&file, REQUEST.replace("/payments ", "/payments?a=1 ")).expect("the file can be written");
        let file = file.to_str().expect("text");
        let ran = store.idem_told(&["why", "--against", file], REQUEST).await;
        text += &scene(&["why", "--against", "other.http"], &ran, normal);
        compare("why", &text);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_prints_each_change() {
    in_time(async {
        let mut text = String::new();
        for more in [&[][..], &["--json"]] {
            let store = Store::sqlite().await;
            park(&store.backend, &payment("b"), 2).await;
            // It ends when the test drops it.
            let Watching {
                child: _child,
                mut out,
                note,
                ..
            } = store.watching(more).await;
            let mut printed = vec![note];
            complete(&store.backend, &payment("a"), 1, Completion::Unknown).await;
            // Between the claim and the completion there may be a look.
            printed.push(last(&mut out, "unknown").await);
            store
                .idem(&["resolve", &named("b"), "--rerun", "--yes", "--reason", "x"])
                .await
                .exits(0);
            printed.push(last(&mut out, "parked").await);
            store
                .idem(&["forget", &named("a"), "--yes", "--reason", "x"])
                .await
                .exits(0);
            printed.push(last(&mut out, "gone").await);
            text += &normal(&(printed.join("\n") + "\n"));
        }
        compare(
            "watch",
            &text
                .replace("in-flight -> unknown", "- -> unknown")
                .replace("\"was\":\"in-flight\"", "\"was\":null"),
        );
    })
    .await;
}

/// The next line that says this.
async fn last(lines: &mut Lines<BufReader<ChildStdout>>, what: &str) -> String {
    loop {
        let line = lines.next_line().await.expect("it runs").expect("a line");
        if line.contains(what) {
            return line;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checks_of_a_doctor_are_named_as_they_were() {
    in_time(async {
        let [redis, sqlite] = [
            Store::redis().await.idem(&["doctor", "--json"]).await,
            Store::sqlite().await.idem(&["doctor", "--json"]).await,
        ];
        let postgres = Store::postgres().await.idem(&["doctor", "--json"]).await;
        let mut text = String::new();
        for (name, ran) in [("redis", redis), ("sqlite", sqlite), ("postgres", postgres)] {
            let mut value = ran.exits(0).json().remove(0);
            for finding in value["findings"].as_array_mut().expect("a list") {
                assert!(finding["text"].as_str().is_some_and(|text| !text.is_empty()));
                // It has versions, sizes and times of this machine.
                finding["text"] = "<text>".into();
            }
            let pretty = serde_json::to_string_pretty(&value).expect("JSON");
            let _ = writeln!(text, "{name}\n{pretty}\n");
        }
        compare("doctor", &text);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn help_completions_and_the_man_page_are_as_they_were() {
    let untouched = str::to_owned;
    let help = |arguments: Vec<&'static str>| async move {
        let ran = run(on("redis://127.0.0.1:1/", &arguments), "").await.exits(0);
        scene(&arguments, &ran, untouched)
    };
    let mut text = help(vec!["--help"]).await + &help(vec!["-h"]).await + &help(vec!["--version"]).await;
    for command in [
        "list",
        "show",
        "why",
        "forget",
        "resolve",
        "forget-scope",
        "watch",
        "stats",
        "doctor",
        "completions",
        "man",
    ] {
        text += &help(vec![command, "--help"]).await;
    }
    compare("help", &text);
    let mut text = String::new();
    for arguments in [
        &["completions", "bash"][..],
        &["completions", "zsh"],
        &["completions", "fish"],
        &["man"],
    ] {
        let mut ran = run(on("", arguments), "").await.exits(0);
        let plain = ran.out.replace('\\', "");
        assert!(plain.contains("forget-scope"), "{arguments:?}");
        ran.out = ran
            .out
            .lines()
            .take(12)
            .map(|line| line.trim_end().to_owned() + "\n")
            .collect();
        text += &scene(arguments, &ran, untouched);
    }
    compare("completions", &text);
}
