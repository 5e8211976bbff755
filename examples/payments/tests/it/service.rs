//! The service as a process.

use std::io::{BufRead as _, BufReader, Read as _, Seek as _};
use std::process::{Child, Command, Stdio};

use reqwest::Response;

pub(crate) struct Service {
    pub(crate) url: String,
    child: Child,
}

impl Service {
    /// Starts it and waits until it listens; on a thread of its own, for what it connects to may be a task of the test's.
    pub(crate) async fn start(variables: Vec<(&'static str, String)>) -> Self {
        let starting = tokio::task::spawn_blocking(move || Self::start_and_wait(&variables));
        starting.await.expect("no panic")
    }

    fn start_and_wait(variables: &[(&'static str, String)]) -> Self {
        // Not a pipe, which would have to be read.
        let mut said = tempfile::tempfile().expect("a temporary file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_payments"))
            .env_remove("PAYMENTS_ADDR")
            .env_remove("REDIS_URL")
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(said.try_clone().expect("a second handle")))
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("it says where it listens");
        let url = line.trim().to_owned();
        if url.is_empty() {
            let mut text = String::new();
            let read = said.rewind().and_then(|()| said.read_to_string(&mut text));
            panic!("it did not start: {read:?} {text}");
        }
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

/// Pays a cent.
pub(crate) async fn pay(url: &str, reference: &str) -> reqwest::Result<Response> {
    pay_cents(url, reference, 1).await
}

pub(crate) async fn pay_cents(url: &str, reference: &str, cents: u32) -> reqwest::Result<Response> {
    let payment = format!(r#"{{"account": "acme", "reference": "{reference}", "cents": {cents}}}"#);
    reqwest::Client::new()
        .post(format!("{url}/payments"))
        .header("Idempotency-Key", reference)
        .header("Content-Type", "application/json")
        .body(payment)
        .send()
        .await
}
