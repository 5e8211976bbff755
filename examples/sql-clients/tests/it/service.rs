//! The service as a process.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use reqwest::Response;

pub(crate) struct Service {
    pub(crate) url: String,
    child: Child,
}

impl Service {
    /// Starts it and waits until it listens; on a thread of its own, for what it connects to may be a task of the test's.
    pub(crate) async fn start(client: &'static str, database: impl Into<String>) -> Self {
        let database = database.into();
        let starting = tokio::task::spawn_blocking(move || Self::start_and_wait(client, &database));
        starting.await.expect("no panic")
    }

    fn start_and_wait(client: &str, database: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sql-clients"))
            .arg(client)
            .env("DATABASE_URL", database)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("it says where it listens");
        let url = line.trim().to_owned();
        assert!(!url.is_empty(), "{client} did not start");
        Self { url, child }
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It is gone either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Orders an item, under a key of its own.
pub(crate) async fn place(url: &str, item: &str) -> reqwest::Result<Response> {
    reqwest::Client::new()
        .post(format!("{url}/orders"))
        .header("Idempotency-Key", item)
        .header("Content-Type", "application/json")
        .body(format!(r#"{{"item": "{item}"}}"#))
        .send()
        .await
}
