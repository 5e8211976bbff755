//! The first programs of the README and the tutorial, as processes: what they promise of a shutdown holds.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use axum::http::StatusCode;
use idem_tests::{Call, Client, RedisServer, in_time};
use reqwest::Method;

const PROGRAMS: [&str; 2] = [env!("CARGO_BIN_EXE_readme"), env!("CARGO_BIN_EXE_tutorial")];

/// A running program; it is killed when this is dropped.
struct Program {
    child: Child,
    /// What it prints; it would end if nobody read that.
    lines: Lines<BufReader<ChildStdout>>,
    client: Client,
}

impl Program {
    fn start(program: &str, redis: &RedisServer) -> Self {
        let mut command = Command::new(program);
        command.env("BACKEND_URL", redis.url());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(stdout).lines();
        let line = lines.next().expect("it says where it listens").expect("it is text");
        let url = line.strip_prefix("listening on ").expect("it says where it listens");
        let client = Client::new(url);
        Self { child, lines, client }
    }

    fn order(&self, key: &str) -> Call {
        let body = serde_json::json!({ "item": "pump" });
        let call = self.client.call(Method::POST, "/orders").tenant("acme-demo");
        call.key(key).json(&body)
    }

    /// Waits until a handler is at work.
    fn wait_until_at_work(&mut self) {
        let line = self.lines.next().expect("it is at work").expect("it is text");
        assert_eq!(line, "at work");
    }

    fn terminate(&self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the signal can be sent");
    }

    async fn ended(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It is gone either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// IDEM-5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_waits_for_a_handler_whose_client_has_left_and_its_answer_is_recorded() {
    for path in PROGRAMS {
        in_time(async {
            let redis = RedisServer::start().await;
            let mut program = Program::start(path, &redis);
            let sending = tokio::spawn(program.order("k").try_send());
            program.wait_until_at_work();
            sending.abort();
            assert!(sending.await.is_err(), "the client has left before it had an answer");
            program.terminate();
            assert!(program.ended().await.success(), "{path}");

            let next = Program::start(path, &redis);
            let retry = next.order("k").send().await;
            assert_eq!(retry.status, StatusCode::CREATED);
            assert!(retry.is_replay(), "{path}: it ran again");
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_gets_no_replay() {
    for path in PROGRAMS {
        in_time(async {
            let redis = RedisServer::start().await;
            let program = Program::start(path, &redis);
            let first = program.order("k").send().await;
            assert_eq!(first.status, StatusCode::CREATED);
            let stranger = program.order("k").tenant("guessed").send().await;
            assert_eq!(stranger.status, StatusCode::UNAUTHORIZED);
            let other = program.order("k").tenant("globex-demo").send().await;
            assert_eq!(other.status, StatusCode::CREATED);
            assert!(!other.is_replay());
        })
        .await;
    }
}
