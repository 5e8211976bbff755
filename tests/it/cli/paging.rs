//! Lists that go on in another process, and readers that have seen enough.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use idem_core::Backend;
use idem_core::steps::StepBackend;
use idem_tests::in_time;

use super::records::{claim, fill, payment, take};
use super::settling::on_each_backend;
use super::{Store, run};

const RECORDS: usize = 70;

on_each_backend! {
    a_list_goes_on_in_another_process_and_returns_each_record_once
}

async fn a_list_goes_on_in_another_process_and_returns_each_record_once<B: Backend + StepBackend>(store: Store<B>) {
    let keys: Vec<_> = (0..RECORDS).map(|number| payment(&format!("k{number}"))).collect();
    let backend = &store.backend;
    let takes = keys.iter().zip(1..).map(|(key, number)| {
        let claim = claim(number);
        async move { take(backend, key, &claim).await }
    });
    join_all(takes).await;
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    let mut pages = 0;
    loop {
        let mut line = vec!["list", "--json", "--limit", "20"];
        line.extend(after.as_deref().map(|after| ["--after", after]).into_iter().flatten());
        let page = store.idem(&line).await.exits(0).json().remove(0);
        let records = page["records"].as_array().expect("a list");
        found.extend(
            records
                .iter()
                .map(|record| record["record"].as_str().expect("a key").to_owned()),
        );
        pages += 1;
        after = page["next"].as_str().map(str::to_owned);
        assert_eq!(page["has_more"], after.is_some());
        if after.is_none() {
            break;
        }
    }
    assert!(pages >= 3, "{pages} pages");
    assert_eq!(found.len(), RECORDS);
    let expected: BTreeSet<_> = keys.iter().map(ToString::to_string).collect();
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    let all = store
        .idem(&["list", "--all", "--operation", "POST /payments"])
        .await
        .exits(0);
    assert_eq!(all.out.lines().count(), RECORDS + 1);
}

/// A closed pipe, as `head -1` leaves it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_command_panics_where_nobody_reads() {
    in_time(async {
        let store = Store::sqlite().await;
        fill(&store).await;
        for line in [
            &["list"][..],
            &["list", "--json"],
            &["list", "--all"],
            &["show", "POST /payments:acme:stored"],
            &["stats"],
            &["doctor"],
            &["watch", "--looks", "1"],
            &["forget-scope", "--scope", "acme"],
            &["--help"],
            &["completions", "bash"],
            &["completions", "zsh"],
            &["man"],
        ] {
            let mut command = store.command(line);
            let (reader, writer) = std::io::pipe().expect("a pipe");
            drop(reader);
            let child = command
                .stdin(std::process::Stdio::null())
                .stdout(writer)
                .stderr(std::process::Stdio::piped());
            let output = child
                .spawn()
                .expect("it starts")
                .wait_with_output()
                .await
                .expect("it ends");
            let err = String::from_utf8_lossy(&output.stderr);
            assert!(!err.contains("panicked"), "{line:?}: {err}");
            // The health of the store is known without a reader.
            let expected = if line[0] == "doctor" { 6 } else { 0 };
            assert_eq!(output.status.code(), Some(expected), "{line:?}: {output:?}");
        }
        run(store.command(&["list"]), "").await.exits(0);
    })
    .await;
}
