//! Ships the orders of a Redis stream: `redis_streams <consumer>`, with a name of its own for each process.
//!
//! `REDIS_URL` is the server, `BOOK` the carrier's book. `LEASE` and `IDLE` are seconds.

use std::env;
use std::error::Error;
use std::time::Duration;

use consumers::{Carrier, Order, Parcel, ShipError};
use futures_util::FutureExt as _;
use idem_task::{Batch, Engine, RedisBackend, TaskExt as _, Verdict};
use redis::aio::MultiplexedConnection;
use redis::streams::{
    StreamAutoClaimOptions, StreamAutoClaimReply, StreamId, StreamPendingCountReply, StreamReadOptions, StreamReadReply,
};
use redis::{AsyncCommands as _, AsyncConnectionConfig, RedisResult};
use tokio::signal::unix::{SignalKind, signal};

const STREAM: &str = "orders";
const GROUP: &str = "shippers";
/// For people to look at.
const ASIDE: &str = "orders:aside";
/// Longer than the stream keeps a message, and than any replay of it.
const TTL: Duration = Duration::from_hours(14 * 24);
const AT_ONCE: usize = 16;
/// A message that has failed so many times is set aside.
const MOST_DELIVERIES: usize = 20;
/// A message whose consumer has died so many times is set aside.
const MOST_ATTEMPTS: u32 = 3;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let name = env::args().nth(1).ok_or("usage: redis_streams <consumer>")?;
    let mut consumer = Consumer::connect(name).await?;
    let mut terminated = signal(SignalKind::terminate())?;
    let stop = async move { _ = terminated.recv().await }.boxed().shared();
    loop {
        // Messages that were on their way to a dropped `receive` are pending, and are delivered again.
        let messages = tokio::select! {
            messages = consumer.receive() => messages?,
            () = stop.clone() => break,
        };
        let batch = Batch::of(&messages).at_once(AT_ONCE).until(stop.clone());
        let verdicts = batch.run(|message| consumer.ship(message)).await;
        for (message, verdict) in messages.iter().zip(verdicts) {
            consumer.tell(message, verdict).await?;
        }
    }
    consumer.engine.drain().await;
    Ok(())
}

struct Message {
    id: String,
    payload: String,
}

impl From<StreamId> for Message {
    fn from(entry: StreamId) -> Self {
        let payload = entry.get("order").unwrap_or_default();
        Self { id: entry.id, payload }
    }
}

struct Consumer {
    name: String,
    engine: Engine,
    carrier: Carrier,
    /// For commands that wait. They keep other commands on their connection waiting.
    reading: MultiplexedConnection,
    redis: MultiplexedConnection,
    lease: Duration,
    /// A message that nobody has touched for so long belongs to a dead consumer. Longer than the lease, so that its task can run
    /// again when another consumer takes it.
    idle: Duration,
    /// Where the search for such messages goes on.
    searched: String,
}

impl Consumer {
    async fn connect(name: String) -> Result<Self, Box<dyn Error>> {
        let url = env::var("REDIS_URL")?;
        let patient = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
        let client = redis::Client::open(&*url)?;
        let mut redis = client.get_multiplexed_async_connection().await?;
        let created: RedisResult<()> = redis.xgroup_create_mkstream(STREAM, GROUP, "0").await;
        match created {
            Err(error) if error.code() != Some("BUSYGROUP") => return Err(error.into()),
            _ => {}
        }
        Ok(Self {
            name,
            engine: Engine::new(RedisBackend::connect(&url).await?),
            carrier: Carrier::new(env::var("BOOK")?),
            reading: client.get_multiplexed_async_connection_with_config(&patient).await?,
            redis,
            lease: seconds("LEASE", 10)?,
            idle: seconds("IDLE", 30)?,
            searched: "0-0".to_owned(),
        })
    }

    /// The messages of dead consumers, or else new ones; none if there are none for a second.
    async fn receive(&mut self) -> RedisResult<Vec<Message>> {
        let count = StreamAutoClaimOptions::default().count(AT_ONCE);
        let idle = milliseconds(self.idle);
        let stale = self
            .redis
            .xautoclaim_options(STREAM, GROUP, &self.name, idle, &self.searched, count);
        let stale: StreamAutoClaimReply = stale.await?;
        self.searched = stale.next_stream_id;
        if !stale.claimed.is_empty() {
            return Ok(stale.claimed.into_iter().map(Message::from).collect());
        }
        let options = StreamReadOptions::default();
        let options = options.group(GROUP, &self.name).count(AT_ONCE).block(1000);
        let new: Option<StreamReadReply> = self.reading.xread_options(&[STREAM], &[">"], &options).await?;
        let streams = new.into_iter().flat_map(|reply| reply.keys);
        Ok(streams.flat_map(|stream| stream.ids).map(Message::from).collect())
    }

    async fn ship(&self, message: &Message) -> Result<Parcel, ShipError> {
        let order: Order = serde_json::from_str(&message.payload)?;
        let task = self.engine.task("ship").scope(STREAM).key(&order.id).ttl(TTL);
        let task = task.lease(self.lease).max_attempts(MOST_ATTEMPTS).compare(&order);
        let task = task.on_renew(self.keep(&message.id));
        let carrier = self.carrier.clone();
        task.run(|_| carrier.ship(order)).await
    }

    /// Tells the stream that the message is worked on: it is idle for 0 ms, and its deliveries are not counted up.
    fn keep(&self, id: &str) -> impl Fn() + Send + Sync + 'static {
        let mut claim = redis::cmd("XCLAIM");
        claim.arg(&[STREAM, GROUP, &self.name, "0", id, "JUSTID"]);
        let redis = self.redis.clone();
        move || {
            let (claim, mut redis) = (claim.clone(), redis.clone());
            tokio::spawn(async move {
                if let Err(error) = claim.exec_async(&mut redis).await {
                    tracing::warn!(%error, "another consumer may get a message that is worked on, and will be refused");
                }
            });
        }
    }

    async fn tell(&mut self, message: &Message, verdict: Verdict) -> RedisResult<()> {
        match verdict {
            Verdict::Acknowledge => self.redis.xack(STREAM, GROUP, &[&message.id]).await,
            Verdict::SetAside => self.set_aside(message).await,
            Verdict::Redeliver(_) if self.deliveries(message).await? >= MOST_DELIVERIES => {
                self.set_aside(message).await
            }
            // It stays pending, and a consumer takes it when it has been idle for long enough.
            Verdict::Redeliver(_) => Ok(()),
        }
    }

    async fn set_aside(&mut self, message: &Message) -> RedisResult<()> {
        let mut both = redis::pipe();
        both.atomic().xadd(ASIDE, "*", &[("order", &message.payload)]);
        both.xack(STREAM, GROUP, &[&message.id]);
        both.exec_async(&mut self.redis).await
    }

    async fn deliveries(&mut self, message: &Message) -> RedisResult<usize> {
        let pending = self.redis.xpending_count(STREAM, GROUP, &message.id, &message.id, 1);
        let pending: StreamPendingCountReply = pending.await?;
        Ok(pending.ids.first().map_or(0, |pending| pending.times_delivered))
    }
}

fn seconds(variable: &str, default: u64) -> Result<Duration, Box<dyn Error>> {
    let set = env::var(variable).ok().map(|set| set.parse()).transpose()?;
    Ok(Duration::from_secs(set.unwrap_or(default)))
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
