//! Clients that want an outcome, whatever it takes.
//!
//! Owns asking again, elsewhere, until there is one, and what came back each time. Judges nothing.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::fleet::Fleet;
use super::plan::{Key, Plan, Request};
use super::service::{DIE, REQUEST, RUN, Task, UNDONE};
use crate::{Answer, Client};

/// How long a client waits before it asks again.
const PAUSE: Duration = Duration::from_millis(100);
/// The same where the server was away, as its answer asks for: who hurries keeps it from coming back.
const LONG_PAUSE: Duration = Duration::from_secs(1);
/// How long a client asks before it counts as never answered; far above lease and wait.
pub(super) const PATIENCE: Duration = Duration::from_secs(45);

/// The longest body that is kept as it is.
const LARGE: usize = 64 * 1024;

/// What one try came to.
#[derive(Clone, Debug)]
pub(super) struct Answered {
    /// Which key of the plan.
    pub(super) key: usize,
    /// The try, as the journal names it.
    pub(super) request: String,
    /// Whether it asked for something else under the key.
    pub(super) is_probe: bool,
    pub(super) got: Got,
    /// The process that was asked.
    pub(super) process: u32,
    pub(super) asked: Instant,
    pub(super) at: Instant,
}

/// What a client can tell apart.
#[derive(Clone, Debug)]
pub(super) enum Got {
    Created(Created),
    InFlight,
    OutcomeUnknown,
    NotStored,
    Mismatch,
    Unavailable,
    /// The database refused to commit what the handler had done.
    RolledBack,
    /// Whether it was committed is not known.
    NotCommitted,
    /// The handler says itself that it could not do it.
    Undone,
    /// The connection broke, or there was nobody.
    Lost,
    /// The client hung up by itself.
    Left,
    /// Nothing came, for longer than anything takes.
    Hung,
    /// What no client should see.
    Other(String),
}

/// A 201.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Created {
    /// Which run it is the answer of.
    pub(super) token: String,
    pub(super) is_replay: bool,
    /// Whether it does not say that it could not be stored.
    pub(super) is_stored: bool,
    /// Status, headers and body, but for what tells a replay from a first answer; of a large body, its digest.
    pub(super) answer: Answer,
}

impl Got {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Created(created) if created.is_replay => "201, replayed",
            Self::Created(created) if created.is_stored => "201",
            Self::Created(_) => "201, not stored yet",
            Self::InFlight => "409 in-flight",
            Self::OutcomeUnknown => "409 outcome-unknown",
            Self::NotStored => "409 response-not-stored",
            Self::Mismatch => "422 key-reused",
            Self::RolledBack => "500 or 503 rolled-back",
            Self::NotCommitted => "503 not-committed",
            Self::Undone => "502 of the handler",
            Self::Unavailable => "503 backend-unavailable",
            Self::Lost => "connection broken",
            Self::Left => "client left",
            Self::Hung => "none",
            Self::Other(_) => "other",
        }
    }

    fn of(answer: Answer) -> Self {
        if answer.status == StatusCode::CREATED {
            return Self::Created(Created::of(answer));
        }
        if answer.status == UNDONE {
            return Self::Undone;
        }
        let code = answer.problem();
        match (answer.status.as_u16(), code.as_str()) {
            (409, "in-flight") => Self::InFlight,
            (409, "outcome-unknown") => Self::OutcomeUnknown,
            (409, "response-not-stored") => Self::NotStored,
            (422, "key-reused") => Self::Mismatch,
            (500 | 503, "rolled-back") => Self::RolledBack,
            (503, "not-committed") => Self::NotCommitted,
            (503, "backend-unavailable") => Self::Unavailable,
            (status, code) => Self::Other(format!("{status} {code}")),
        }
    }
}

impl Created {
    fn of(answer: Answer) -> Self {
        let token = answer.headers.get(RUN).and_then(|token| token.to_str().ok());
        let token = token.unwrap_or_default().to_owned();
        let (is_replay, is_stored) = (answer.is_replay(), !answer.says_not_stored());
        let mut answer = answer.without_marker();
        answer.headers.remove("idempotency-stored");
        if answer.body.len() > LARGE {
            answer.body = digest(&answer.body);
        }
        Self {
            token,
            is_replay,
            is_stored,
            answer,
        }
    }
}

/// In place of a body that is too large to be kept until the round is judged.
fn digest(body: &Bytes) -> Bytes {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    format!("{} bytes, hash {:x}", body.len(), hasher.finish()).into()
}

/// All clients of a round.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) plan: Arc<Plan>,
    pub(super) fleet: Arc<Fleet>,
    answers: Arc<Mutex<Vec<Answered>>>,
}

impl Load {
    pub(super) fn new(plan: Arc<Plan>, fleet: Arc<Fleet>) -> Self {
        Self {
            plan,
            fleet,
            answers: Arc::default(),
        }
    }

    /// Sends everything that is planned and waits until every client has its outcome.
    pub(super) async fn run(&self) {
        let begun = Instant::now();
        let mut clients = JoinSet::new();
        for (at, key) in self.plan.keys.iter().enumerate() {
            for (number, request) in key.requests.iter().enumerate() {
                let (load, starts) = (self.clone(), begun + request.at);
                clients.spawn(async move {
                    sleep_until(starts).await;
                    load.ask(at, number, Some(&load.plan.keys[at].requests[number])).await;
                });
            }
        }
        clients.join_all().await;
    }

    /// Asks for each key once more.
    pub(super) async fn look_back(&self) {
        let mut clients = JoinSet::new();
        for (at, key) in self.plan.keys.iter().enumerate() {
            let (load, number) = (self.clone(), key.requests.len());
            clients.spawn(async move { load.ask(at, number, None).await });
        }
        clients.join_all().await;
    }

    pub(super) fn answers(&self) -> Vec<Answered> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, answered: Answered) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.push(answered);
    }

    /// One client: tries one process after the other until it has an outcome.
    async fn ask(&self, index: usize, number: usize, planned: Option<&Request>) {
        let key = &self.plan.keys[index];
        let first = planned.map_or(number, |planned| planned.process);
        let begun = Instant::now();
        for attempt in 0.. {
            let request = format!("{}/{number}/{attempt}", key.name);
            let called = self.fleet.process(first + attempt);
            let asked = Instant::now();
            let note = |process, got| {
                let (request, at) = (request.clone(), Instant::now());
                self.note(Answered {
                    key: index,
                    request,
                    is_probe: false,
                    got,
                    process,
                    asked,
                    at,
                });
            };
            if begun.elapsed() > PATIENCE {
                return note(0, Got::Hung);
            }
            let mut pause = PAUSE;
            if let Some((process, client)) = called {
                let special = planned.filter(|_| attempt == 0);
                let got = try_once(&client, key, &request, special).await;
                note(process, got.clone());
                match got {
                    Got::Created(created) => {
                        if key.is_probed && number == 0 && created.is_stored {
                            self.probe(index, process, &client).await;
                        }
                        return;
                    }
                    Got::OutcomeUnknown | Got::NotStored | Got::Mismatch | Got::Hung | Got::Other(_) => return,
                    Got::Unavailable => pause = LONG_PAUSE,
                    Got::InFlight | Got::RolledBack | Got::NotCommitted | Got::Undone | Got::Lost | Got::Left => {}
                }
            }
            sleep(pause).await;
        }
    }

    /// Asks for something else under a key that has an answer.
    async fn probe(&self, index: usize, process: u32, client: &Client) {
        let key = &self.plan.keys[index];
        let other = Task {
            order: format!("not {}", key.task.order),
            takes: 0,
            padding: key.task.padding,
        };
        let (request, asked) = (format!("{}/probe", key.name), Instant::now());
        let got = send(client, key, &other, &request, None).await;
        self.note(Answered {
            key: index,
            request,
            is_probe: true,
            got,
            process,
            asked,
            at: Instant::now(),
        });
    }
}

async fn try_once(client: &Client, key: &Key, request: &str, special: Option<&Request>) -> Got {
    let die = special.and_then(|special| special.die);
    let sent = send(client, key, &key.task, request, die.map(super::Point::name));
    match special.and_then(|special| special.leaves) {
        Some(after) => timeout(after, sent).await.unwrap_or(Got::Left),
        None => sent.await,
    }
}

async fn send(client: &Client, key: &Key, task: &Task, request: &str, die: Option<&str>) -> Got {
    let call = client.call(reqwest::Method::POST, key.route.path());
    let mut call = call.key(&key.name).json(task).header(REQUEST, request.as_bytes());
    if let Some(point) = die {
        call = call.header(DIE, point.as_bytes());
    }
    match timeout(PATIENCE, call.try_send()).await {
        Ok(Ok(answer)) => Got::of(answer),
        Ok(Err(_broken)) => Got::Lost,
        Err(_elapsed) => Got::Hung,
    }
}
