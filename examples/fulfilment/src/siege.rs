//! Orders that come while consumer processes are killed, acknowledgements are lost, and the stream is replayed.
//!
//! Owns the pace of orders and the moments of kills. Does not own what follows: [`figures`](crate::figures).

use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::carrier::NOWHERE;
use crate::config::Config;
use crate::figures::Figures;
use crate::journal::What;
use crate::ship::Order;
use crate::stage::{Stage, StageError};
use crate::worker::Worker;

/// The consumer under siege, and the one that gets the whole stream again.
pub const BESIEGED: &str = "fulfilment";
/// See [`BESIEGED`].
pub const REPLAY: &str = "replay";

/// One of so many orders goes to an address that does not exist.
const TO_NOWHERE: usize = 50;

/// One of so many deliveries is not acknowledged, on purpose.
const LOSE_ACKS: u64 = 5;

/// The most deliveries that a process takes before it is killed.
const MOST_TAKEN: usize = 8;

/// What happens, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Siege {
    /// How many orders are placed.
    pub orders: usize,
    /// For how long they are placed, evenly. Processes are killed for as long.
    pub lasting: Duration,
    /// How many processes consume at a time.
    pub processes: usize,
    /// After which time the broker delivers again what is not acknowledged.
    pub ack_wait: Duration,
    /// How long the claim of a process that died keeps others from its order.
    pub lease: Duration,
}

impl Siege {
    /// Three processes. What a killed one was working on is delivered again when its lease has lapsed, so that the order goes on at once.
    #[must_use]
    pub fn new(orders: usize, lasting: Duration) -> Self {
        Self {
            orders,
            lasting,
            processes: 3,
            ack_wait: Duration::from_secs(4),
            lease: Duration::from_secs(3),
        }
    }

    /// Places orders and kills processes; then waits until the stream is consumed, and replays it with a new consumer.
    ///
    /// # Errors
    ///
    /// If something cannot be started, or messages are left.
    pub async fn run(&self, stage: &Stage) -> Result<Figures, StageError> {
        let config = Config {
            lease: self.lease,
            lose_acks: LOSE_ACKS,
            ..stage.config(BESIEGED)
        };
        stage.broker.create_consumer(BESIEGED, self.ack_wait).await?;
        let over = watch::Sender::new(false);
        let placing = async {
            self.place(stage).await?;
            over.send_replace(true);
            Ok(())
        };
        let slots = (0..self.processes).map(|_| besiege(stage, &config, over.subscribe()));
        let ((), slots) = tokio::try_join!(placing, try_join_all(slots))?;
        let (kills, workers): (Vec<usize>, Vec<Worker>) = slots.into_iter().unzip();
        let besieged = stage.consumed(BESIEGED).await?;
        stop(workers).await?;
        let ledger = stage.carrier.ledger();

        stage.broker.create_consumer(REPLAY, self.ack_wait).await?;
        let config = Config {
            lease: self.lease,
            ..stage.config(REPLAY)
        };
        let worker = stage.worker(&config)?;
        let replay = stage.consumed(REPLAY).await?;
        stop([worker]).await?;
        Ok(Figures {
            messages: self.orders,
            to_nowhere: to_nowhere(self.orders),
            deliveries: besieged.deliveries,
            replayed: replay.deliveries,
            kills: kills.iter().sum(),
            calls_in_replay: stage.carrier.ledger().calls() - ledger.calls(),
            ledger: stage.carrier.ledger(),
            entries: stage.journal.of(BESIEGED),
            aside: stage.broker.aside().await?.len(),
        })
    }

    async fn place(&self, stage: &Stage) -> Result<(), StageError> {
        // Keeps the keys of one run apart from those of another in the same Redis.
        let run: u64 = rand::random();
        let began = Instant::now();
        let orders = u32::try_from(self.orders).unwrap_or(u32::MAX).max(1);
        for (place, number) in (1..=self.orders).zip(1..) {
            let address = if place.is_multiple_of(TO_NOWHERE) {
                NOWHERE
            } else {
                "1 Main Street"
            };
            let order = Order {
                id: format!("{run:016x}-{place}"),
                item: "a pump".to_owned(),
                address: address.to_owned(),
            };
            stage.broker.place(&order).await?;
            sleep_until(began + self.lasting / orders * number).await;
        }
        Ok(())
    }
}

/// How many of the orders go to an address that does not exist.
fn to_nowhere(orders: usize) -> usize {
    orders / TO_NOWHERE
}

/// Starts one process after the other, and kills each while it works. The last one lives, and loses no acknowledgement, so that the
/// stream comes to its end.
async fn besiege(
    stage: &Stage,
    config: &Config,
    mut over: watch::Receiver<bool>,
) -> Result<(usize, Worker), StageError> {
    let mut kills = 0;
    loop {
        let mut worker = stage.worker(config)?;
        let (id, most) = (worker.id, rand::random_range(1..=MOST_TAKEN));
        let taken = stage.journal.until(|entries| {
            let of_it = entries.iter().filter(|entry| entry.process == id);
            of_it.filter(|entry| entry.event.what == What::Began).count() >= most
        });
        let is_last = tokio::select! {
            () = taken => false,
            _ = over.wait_for(|over| *over) => true,
            failed = worker.ended() => return Err(failed?.into()),
        };
        // Anywhere in the work on the order: packing, the carrier's answer, the record, the acknowledgement.
        sleep(config.packing.mul_f64(rand::random_range(0.0..2.0))).await;
        worker.kill().await?;
        kills += 1;
        if is_last {
            let calm = Config {
                lose_acks: 0,
                ..config.clone()
            };
            return Ok((kills, stage.worker(&calm)?));
        }
    }
}

async fn stop(workers: impl IntoIterator<Item = Worker>) -> Result<(), StageError> {
    for stopped in join_all(workers.into_iter().map(Worker::stop)).await {
        stopped?;
    }
    Ok(())
}
