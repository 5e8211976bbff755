//! The consumers in one process: they run a task for each message that the queue delivers.
//!
//! Owns what such a task does: it keeps the journal, and fails and dies where the delivery tells it to.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use idem_task::{
    AfterCrash, Batch, Engine, Execution, Refused, RefusedKind, TaskError, TaskExt as _, Verdict, verdict,
};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::message::{Answer, Ask, CONSUMERS, Delivered, Delivery, Failing, Outcome, Said};
use crate::lab::journal::{Event, Journal};
use crate::lab::service::{LEASE, Point, end_process};

/// How many connections each consumer has in a process; each of them has one batch at a time.
const CONNECTIONS: usize = 2;
/// How long a delivery waits for another one that runs.
const WAIT: Duration = Duration::from_secs(2);
/// How long a consumer waits before it connects again.
const PAUSE: Duration = Duration::from_millis(50);

/// Consumes from the queue at `broker` for as long as the process lives.
pub async fn consume(engine: Engine, broker: String, journal: Journal) {
    let mut connections = JoinSet::new();
    for name in CONSUMERS.into_iter().cycle().take(CONNECTIONS * CONSUMERS.len()) {
        let consumer = Consumer {
            name,
            engine: engine.clone(),
            journal: journal.clone(),
        };
        let broker = broker.clone();
        connections.spawn(async move {
            loop {
                let _broken = consumer.attend(&broker).await;
                sleep(PAUSE).await;
            }
        });
    }
    connections.join_all().await;
}

/// What a delivery has come to so far, by its number.
type Outcomes = Arc<Mutex<BTreeMap<usize, Outcome>>>;

#[derive(Clone, Debug)]
struct Consumer {
    name: &'static str,
    engine: Engine,
    journal: Journal,
}

impl Consumer {
    async fn attend(&self, broker: &str) -> io::Result<()> {
        let (reading, mut writing) = TcpStream::connect(broker).await?.into_split();
        let mut lines = BufReader::new(reading).lines();
        let (saying, mut said) = unbounded_channel();
        let consumer = self.name.to_owned();
        // It is received as long as this runs.
        let _ = saying.send(Said::Hello { consumer });
        let working = async {
            while let Some(line) = lines.next_line().await? {
                let done = self.work_on(serde_json::from_str(&line)?, &saying).await;
                let _ = saying.send(done);
            }
            Err(io::ErrorKind::UnexpectedEof.into())
        };
        tokio::select! {
            ended = working => ended,
            ended = say(&mut said, &mut writing) => ended,
        }
    }

    async fn work_on(&self, delivered: Delivered, saying: &UnboundedSender<Said>) -> Said {
        let Delivered { batch, deliveries } = delivered;
        let numbers: Vec<_> = deliveries.iter().map(|delivery| delivery.number).collect();
        let outcomes = Outcomes::default();
        let verdicts = Batch::of(deliveries)
            // What is in no partition is in order with itself.
            .in_order_of(|delivery| delivery.partition.ok_or(delivery.number))
            .run(|delivery| self.deliver(batch, delivery, saying.clone(), outcomes.clone()))
            .await;
        let outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = numbers.into_iter().zip(verdicts).map(|(number, verdict)| Answer {
            ask: ask(verdict),
            outcome: outcomes.get(&number).cloned().unwrap_or(Outcome::NotBegun),
        });
        let answers = answers.collect();
        Said::Done { batch, answers }
    }

    async fn deliver(
        &self,
        batch: usize,
        delivery: Delivery,
        saying: UnboundedSender<Said>,
        outcomes: Outcomes,
    ) -> Result<String, Failure> {
        let number = delivery.number;
        let message = delivery.message.clone();
        let mut task = self
            .engine
            .task(self.name)
            .scope("orders")
            .key(&message.id)
            .ttl(Duration::from_millis(message.ttl))
            .lease(LEASE)
            .compare(&message)
            .on_renew(move || {
                let _ = saying.send(Said::Extend { batch, number });
            });
        if message.waits {
            task = task.wait(WAIT);
        }
        if message.refuses {
            task = task.after_crash(AfterCrash::Refuse);
        }
        let work = Work::of(self, delivery);
        work.pass(Point::BeforeClaim, false);
        let running = work.clone();
        let result = task.run(move |execution| running.run(execution)).await;
        let outcome = work.outcome(&result);
        work.pass(Point::AfterCompletion, matches!(outcome, Outcome::Replayed(_)));
        let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.insert(number, outcome);
        result
    }
}

/// Writes what is said, until the connection breaks.
async fn say(said: &mut UnboundedReceiver<Said>, writing: &mut OwnedWriteHalf) -> io::Result<()> {
    while let Some(said) = said.recv().await {
        let mut line = serde_json::to_vec(&said)?;
        line.push(b'\n');
        writing.write_all(&line).await?;
    }
    Ok(())
}

fn ask(verdict: Verdict) -> Ask {
    match verdict {
        Verdict::Acknowledge => Ask::Acknowledge,
        Verdict::Redeliver(after) => Ask::Redeliver(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        Verdict::SetAside => Ask::SetAside,
    }
}

/// Why a message has no result.
#[derive(Debug)]
enum Failure {
    Refused(Refused),
    ForNow,
    ForGood,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refused) => refused.fmt(f),
            Self::ForNow => f.write_str("not now"),
            Self::ForGood => f.write_str("never"),
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl TaskError for Failure {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Refused(refused) => refused.verdict(),
            Self::ForNow => Verdict::Redeliver(Duration::from_millis(100)),
            Self::ForGood => Verdict::SetAside,
        }
    }
}

/// What the task of one delivery does.
#[derive(Clone, Debug)]
struct Work {
    key: String,
    delivery: Delivery,
    journal: Journal,
    /// The name of the run, if it does run.
    token: String,
}

impl Work {
    fn of(consumer: &Consumer, delivery: Delivery) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        Self {
            key: format!("{}/{}", consumer.name, delivery.message.id),
            journal: consumer.journal.clone(),
            token: format!("run {run} of {}", std::process::id()),
            delivery,
        }
    }

    fn pass(&self, at: Point, recorded: bool) {
        if self.delivery.die == Some(at) {
            end_process(&self.journal, &self.key, at, recorded);
        }
    }

    async fn run(self, execution: Execution) -> Result<String, Failure> {
        let token = self.token.clone();
        let message = &self.delivery.message;
        let half = Duration::from_millis(message.takes / 2);
        self.journal.write(Event::Began {
            key: self.key.clone(),
            request: self.delivery.number.to_string(),
            order: message.id.clone(),
            attempt: execution.attempt(),
            token: token.clone(),
        });
        sleep(half).await;
        self.pass(Point::BeforeEffect, false);
        match message.fails {
            Some(Failing::Transiently(deliveries)) if self.delivery.count <= deliveries => {
                self.journal.write(Event::Released { token });
                return Err(Failure::ForNow);
            }
            Some(Failing::Panicking) if self.delivery.count == 1 => {
                self.journal.write(Event::Released { token });
                panic!("as the delivery says");
            }
            Some(Failing::Finally) => {
                self.journal.write(Event::Ended { token });
                return Err(Failure::ForGood);
            }
            _ => {}
        }
        self.journal.write(Event::Effect { token: token.clone() });
        sleep(half).await;
        self.pass(Point::AfterEffect, false);
        self.journal.write(Event::Ended { token: token.clone() });
        Ok(token)
    }

    fn outcome(&self, result: &Result<String, Failure>) -> Outcome {
        match result {
            Ok(token) if *token == self.token => Outcome::Ran(token.clone()),
            Ok(token) => Outcome::Replayed(token.clone()),
            Err(Failure::ForNow) => Outcome::FailedForNow,
            Err(Failure::ForGood) => Outcome::FailedForGood,
            Err(Failure::Refused(refused)) => match refused.kind() {
                RefusedKind::InFlight(_) => Outcome::InFlight,
                RefusedKind::Failed(_) => Outcome::HadFailed,
                RefusedKind::OutcomeUnknown => Outcome::Unknown,
                RefusedKind::BackendUnavailable => Outcome::Unavailable,
                RefusedKind::Panicked => Outcome::Panicked,
                kind => Outcome::Other(format!("{kind:?}, {:?}", verdict(result))),
            },
        }
    }
}
