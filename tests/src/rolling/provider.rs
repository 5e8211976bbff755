//! The provider of a deploy's payments: it notes who did what, and fails or holds calls back as it is told to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What was done, and what the next calls meet.
#[derive(Debug, Default)]
struct Notes {
    acts: Vec<Act>,
    failing: Vec<(&'static str, String)>,
    held: Vec<(&'static str, String, Arc<Gate>)>,
}

#[derive(Debug)]
struct Act {
    by: String,
    what: String,
    reference: String,
}

/// Where one call is held back.
#[derive(Debug, Default)]
pub(super) struct Gate {
    reached: Notify,
    opened: Notify,
}

impl Gate {
    /// Waits until the call is held back.
    pub(super) async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Lets the call go on.
    pub(super) fn open(&self) {
        self.opened.notify_one();
    }
}

type Shared = Arc<Mutex<Notes>>;

fn lock(notes: &Shared) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub(super) struct Provider {
    notes: Shared,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Provider {
    pub(super) async fn start() -> Self {
        let notes = Shared::default();
        let router = Router::new()
            .route("/{by}/{what}/{reference}", post(act))
            .with_state(notes.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serving never ends");
        });
        Self {
            notes,
            address,
            serving,
        }
    }

    /// Where the version of this name calls it.
    pub(super) fn url(&self, by: &str) -> String {
        format!("http://{}/{by}", self.address)
    }

    /// Lets the next call of this kind for `reference` fail.
    pub(super) fn fail_next(&self, what: &'static str, reference: &str) {
        lock(&self.notes).failing.push((what, reference.to_owned()));
    }

    /// Holds the next call of this kind for `reference` back.
    pub(super) fn hold_next(&self, what: &'static str, reference: &str) -> Arc<Gate> {
        let gate = Arc::<Gate>::default();
        let held = (what, reference.to_owned(), gate.clone());
        lock(&self.notes).held.push(held);
        gate
    }

    /// Who has called for `reference` and for what, in order, failures included.
    pub(super) fn acts(&self, reference: &str) -> Vec<String> {
        let notes = lock(&self.notes);
        let acts = notes.acts.iter().filter(|act| act.reference == reference);
        acts.map(|act| format!("{} {}", act.by, act.what)).collect()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn act(
    State(notes): State<Shared>,
    Path((by, what, reference)): Path<(String, String, String)>,
) -> Result<String, StatusCode> {
    let (said, fails, gate) = {
        let mut notes = lock(&notes);
        // No two calls get the same answer, so a step that was called again shows.
        let said = format!("{what} {}", notes.acts.len());
        let mut failing = notes
            .failing
            .extract_if(.., |(next, of)| *next == what && *of == reference);
        let fails = failing.next().is_some();
        drop(failing);
        let mut held = notes
            .held
            .extract_if(.., |(next, of, _)| *next == what && *of == reference);
        let gate = held.next().map(|(_, _, gate)| gate);
        drop(held);
        notes.acts.push(Act { by, what, reference });
        (said, fails, gate)
    };
    if let Some(gate) = gate {
        gate.reached.notify_one();
        gate.opened.notified().await;
    }
    if fails {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    Ok(said)
}
