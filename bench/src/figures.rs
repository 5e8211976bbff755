//! What one request at a time tells: commands, allocations, and how soon a waiter learns of the answer.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::process::Command;

use crate::load::Connection;
use crate::measure::Subject;
use crate::processes::Service;

/// Requests of each kind whose commands are counted.
const COUNTED: u32 = 200;

/// Waiters whose wake-up is timed.
const WOKEN: u32 = 100;

/// Bytes of a body.
const BYTES: usize = 200;

/// The figures, by name.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// Commands that Redis was sent for a first request, and for a replay.
    pub(crate) commands: [f64; 2],
    /// Milliseconds from the first one's answer to its duplicate's, in another process; the median.
    pub(crate) wake_up: f64,
    /// Of a request in the service, on the memory backend.
    pub(crate) allocations: BTreeMap<String, f64>,
}

impl Figures {
    pub(crate) async fn take() -> Self {
        let subject = Subject::start("redis").await;
        Self {
            commands: commands(&subject).await,
            wake_up: wake_up(&subject).await,
            allocations: allocations().await,
        }
    }

    /// Of a first request to the annotated handler, beyond the handler alone.
    pub(crate) fn allocations_beyond_bare(&self) -> f64 {
        let of = |name| self.allocations.get(name).copied().unwrap_or(f64::NAN);
        of("memory, first request") - of("bare, first request")
    }
}

async fn commands(subject: &Subject) -> [f64; 2] {
    let mut connection = Connection::open(subject.service.address, BYTES).await;
    // Loads the scripts.
    connection.exchange("/orders", "commands").await;
    let mut counts = Vec::new();
    for _kind in ["first request", "replay"] {
        let before = subject.redis.commands().await;
        for number in 0..COUNTED {
            connection.exchange("/orders", &format!("commands-{number}")).await;
        }
        let sent = subject.redis.commands().await - before;
        counts.push(sent / f64::from(COUNTED));
    }
    [counts[0], counts[1]]
}

/// A request to one process, and its duplicate to another one that waits for its answer.
async fn wake_up(subject: &Subject) -> f64 {
    let other = Service::start(subject.variant, &subject.redis.url).await;
    let mut first = Connection::open(subject.service.address, BYTES).await;
    let mut duplicate = Connection::open(other.address, BYTES).await;
    let mut late = Vec::new();
    for number in 0..WOKEN {
        let key = format!("wake-up-{number}");
        let answered = async {
            first.exchange("/slow", &key).await;
            Instant::now()
        };
        let woken = async {
            // Long enough for the first one to be first, and short enough to find it at work.
            tokio::time::sleep(idem_bench::SLOW / 4).await;
            duplicate.exchange("/slow", &key).await;
            Instant::now()
        };
        let (answered, woken) = tokio::join!(answered, woken);
        late.push(woken.saturating_duration_since(answered));
    }
    late.sort_unstable();
    let median = late.get(late.len() / 2).copied().unwrap_or(Duration::MAX);
    median.as_secs_f64() * 1e3
}

/// Counted by a program of its own, for an allocator that counts would slow down what is timed.
async fn allocations() -> BTreeMap<String, f64> {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program.with_file_name("idem-bench-allocations"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await
        .expect("`cargo xtask bench` has built it");
    serde_json::from_slice(&output.stdout).expect("it prints its counts")
}
