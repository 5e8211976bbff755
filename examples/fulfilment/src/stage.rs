//! A broker, a carrier and records, for the consumer processes that are started on them.
//!
//! Owns that they are started together, and gone together. Does not own what happens on the stage: [`demo`](crate::demo).

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::broker::{Broker, Progress};
use crate::carrier::Carrier;
use crate::config::{Config, Records};
use crate::journal::Journal;
use crate::nats_server::{NatsServer, ServerError};
use crate::worker::{Worker, WorkerError};

/// How often the broker is asked how far a consumer is.
const INTERVAL: Duration = Duration::from_millis(50);

/// How long a consumer may take for what is left. No message may keep it from that.
const PATIENCE: Duration = Duration::from_mins(2);

/// Why something on the stage does not work.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// There is no broker.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The carrier cannot listen, or there is no temporary folder.
    #[error("the carrier or the folder of the records is missing")]
    Io(#[from] io::Error),
    /// The broker refuses something, or does not answer.
    #[error("the broker does not do what it is asked for")]
    Broker(#[from] async_nats::Error),
    /// A consumer process is not what it should be.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// A consumer does not get to the end of the stream.
    #[error("after {} s there are messages left: {:?}", PATIENCE.as_secs(), .0)]
    Left(Progress),
}

/// The stage. Dropping it stops all of it, consumer processes excepted.
#[derive(Debug)]
pub struct Stage {
    /// The broker.
    pub broker: Broker,
    /// The carrier.
    pub carrier: Carrier,
    /// What the consumer processes say.
    pub journal: Journal,
    server: NatsServer,
    records: Records,
    program: PathBuf,
    _folder: TempDir,
}

impl Stage {
    /// Starts all of it. `program` is this one, for consumer processes; `redis` has the records, which are in a file without it.
    ///
    /// # Errors
    ///
    /// [`StageError`].
    pub async fn start(
        program: PathBuf,
        redis: Option<String>,
        carrier_answers_after: Duration,
    ) -> Result<Self, StageError> {
        let server = NatsServer::start().await?;
        let broker = Broker::connect(server.url()).await?;
        broker.create_streams().await?;
        let folder = tempfile::tempdir()?;
        Ok(Self {
            broker,
            carrier: Carrier::start(carrier_answers_after).await?,
            journal: Journal::default(),
            server,
            records: redis.map_or_else(|| Records::Sqlite(folder.path().join("records.db")), Records::Redis),
            program,
            _folder: folder,
        })
    }

    /// The configuration of a process on this stage.
    #[must_use]
    pub fn config(&self, consumer: &str) -> Config {
        Config {
            nats_url: self.server.url().to_owned(),
            consumer: consumer.to_owned(),
            carrier: self.carrier.addr(),
            records: self.records.clone(),
            at_once: 4,
            packing: Duration::from_millis(50),
            lease: Duration::from_secs(2),
            lose_acks: 0,
        }
    }

    /// Starts a consumer process.
    ///
    /// # Errors
    ///
    /// If there is no such program.
    pub fn worker(&self, config: &Config) -> Result<Worker, WorkerError> {
        Worker::start(&self.program, config, &self.journal)
    }

    /// Waits until every message of the stream is delivered to a consumer, and acknowledged or set aside.
    ///
    /// # Errors
    ///
    /// If some are left after two minutes.
    pub async fn consumed(&self, consumer: &str) -> Result<Progress, StageError> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let progress = self.broker.progress(consumer).await?;
            if progress.left == 0 {
                return Ok(progress);
            }
            if Instant::now() > limit {
                return Err(StageError::Left(progress));
            }
            sleep(INTERVAL).await;
        }
    }

    /// What the records are in.
    #[must_use]
    pub fn records(&self) -> &Records {
        &self.records
    }
}
