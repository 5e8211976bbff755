//! No password of a URL is printed: from the command line or the environment, right or wrong, reachable or not, well formed or not.

use futures_util::future::join_all;
use idem_tests::{RedisServer, in_time};

use super::{Ran, Store, on, run};

/// As it is, and as a URL has it.
const PASSWORD: &str = "s3cr3t/pw";
const ENCODED: &str = "s3cr3t%2Fpw";

#[track_caller]
fn assert_hides(ran: &Ran, what: &str) {
    let printed = ran.all();
    // The part that is the same in both forms.
    for part in ["s3cr3t", "%2Fpw"] {
        assert!(!printed.contains(part), "{what}: {printed}");
    }
    assert!(!printed.contains("panicked"), "{what}: {printed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_failure_to_connect_prints_a_password() {
    let urls = [
        "redis://u:PW@127.0.0.1:1/",
        "redis://:PW@127.0.0.1:1/",
        "redis://u:PW@127.0.0.1:port/",
        "redis://u:PW@/",
        "redis://u:PW@127.0.0.1:1/notadatabase",
        "redis://u:PW@127.0.0.1:1/?protocol=resp9",
        "redis://u:PW@host name/",
        "rediss://u:PW@127.0.0.1:1/",
        "rediss://u:PW@127.0.0.1:1/#insecure",
        "valkey://u:PW@127.0.0.1:1/",
        "redis+cluster://u:PW@127.0.0.1:1/",
        "redis+cluster://u:PW@127.0.0.1:x,127.0.0.1:2/",
        "redis+sentinel://u:PW@127.0.0.1:1/name",
        "redis+sentinel://u:PW@127.0.0.1:1/",
        "redis+unix:///nowhere?user=u&pass=PW",
        "redis+other://u:PW@127.0.0.1:1/",
        "postgres://u:PW@127.0.0.1:1/db",
        "postgres://u@127.0.0.1:1/db?password=PW",
        "postgres://u:PW@127.0.0.1:99999/db",
        "postgres://u:PW@[::1/db",
        "postgres://u:PW@127.0.0.1:1/db?sslmode=maybe",
        "postgresql://u:PW@127.0.0.1:1/db?unknown=PW",
        "sqlite:/nowhere/PW@idem.db",
        "sqlite://u:PW@127.0.0.1/idem.db",
        "sqlite:/nowhere/idem.db?password=PW",
        "mysql://u:PW@127.0.0.1/db",
        "u:PW@127.0.0.1",
        "://u:PW@127.0.0.1",
    ];
    let runs = urls
        .iter()
        .flat_map(|url| [(url, PASSWORD), (url, ENCODED)])
        .map(|(url, password)| async move {
            let url = url.replace("PW", password);
            let line = ["list", "-vv", "--timeout", "2s"];
            let of_environment = run(on(&url, &line), "").await;
            let on_command_line = run(on("", &[&line[..], &["--json", "--url", &url]].concat()), "").await;
            for ran in [of_environment, on_command_line] {
                assert_ne!(ran.code, 0, "{url}");
                assert!(!ran.err.is_empty(), "{url}");
                assert_hides(&ran, &url);
            }
        });
    in_time(join_all(runs)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_that_answers_makes_it_print_a_password() {
    in_time(async {
        let server = RedisServer::start_with(&["--requirepass", PASSWORD]).await;
        let right = server.url().replace("//", &format!("//:{ENCODED}@"));
        let wrong = server.url().replace("//", "//:s3cr3t-wrong@");
        let no_user = server.url().replace("//", &format!("//nobody:{ENCODED}@"));
        for (url, code) in [(&right, 0), (&wrong, 1), (&no_user, 1)] {
            for command in ["list", "doctor", "stats"] {
                let ran = run(on(url, &[command, "-vv", "--timeout", "3s"]), "").await;
                assert_hides(&ran, url);
                assert_eq!(ran.code, code, "{command}: {ran:#?}");
            }
        }
        let store = Store::postgres().await;
        let super::Place::Postgres(server, _) = &store.place else {
            unreachable!("it is Postgres");
        };
        let (scheme, rest) = server
            .url()
            .split_once("://")
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .expect("a URL");
        let host = rest.rsplit_once('@').map_or(rest.as_str(), |(_user, host)| host);
        for command in ["list", "doctor"] {
            let url = format!("{scheme}://nobody:{ENCODED}@{host}");
            let ran = run(on(&url, &[command, "-vv", "--timeout", "3s"]), "").await;
            assert_hides(&ran, &url);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_help_nor_errors_of_the_command_line_show_the_url() {
    let url = format!("redis://u:{ENCODED}@127.0.0.1:1/");
    for line in [
        &["--help"][..],
        &["-h"],
        &["list", "--help"],
        &["help", "resolve"],
        &["lsit"],
        &["list", "--limit", "many"],
        &["list", "--table", "t"],
        &["completions", "bash"],
        &["man"],
        // The URL in a place that is not its own.
        &[&url, "list"],
        &["list", &url],
        &["show", &url, "-vv"],
        &["show", &url.replace("u:", ":").replace(":1/", "/")],
        &["forget", &url, "--yes", "--reason", "r"],
        &[&format!("--uri={url}"), "list"],
        &["list", "--limit", &url],
        &["list", "--state", &url],
    ] {
        let ran = run(on(&url, line), "").await;
        assert_hides(&ran, &format!("{line:?}"));
    }
}
