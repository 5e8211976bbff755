//! What goes wrong with Redis, the way to it, and processes that stall.
//!
//! Owns each fault from its beginning to its end. Processes that die are told so by requests (`service`).

use std::time::Duration;

use tokio::time::sleep;

use super::fleet::Fleet;
use super::journal::{Event, Journal};
use super::random::Random;
use crate::{Proxy, RedisServer};

/// One fault, for as long as it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Redis stands still.
    Freeze(Duration),
    /// Redis is killed, and is back with what it had.
    Restart(Duration),
    /// Redis closes every connection.
    KillClients,
    /// The connections through the proxy break.
    Cut,
    /// The connections through the proxy fall silent, and stay so.
    Silence,
    /// Each chunk through the proxy takes so long, for so long.
    Slow(Duration, Duration),
    /// Redis forgets its scripts.
    ForgetScripts,
    /// Redis has no room for anything new.
    Fill(Duration),
    /// A process stands still.
    FreezeProcess(usize, Duration),
    /// Redis forgets everything.
    Flush,
    /// Redis is killed, and is back with nothing.
    RestartEmpty(Duration),
}

impl Fault {
    /// One of each kind, in any order.
    pub(super) fn deal(random: &mut Random, keeps: bool) -> Vec<Self> {
        let mut deck = vec![
            Self::Freeze(random.millis(500, 3_000)),
            Self::Restart(random.millis(100, 1_500)),
            Self::KillClients,
            Self::Cut,
            Self::Silence,
            Self::Slow(random.millis(2, 100), random.millis(200, 3_000)),
            Self::ForgetScripts,
            Self::Fill(random.millis(100, 1_500)),
            Self::FreezeProcess(random.one_of(&[0, 1, 2]), random.millis(200, 3_000)),
        ];
        if !keeps {
            deck.extend([Self::Flush, Self::RestartEmpty(random.millis(100, 1_500)), Self::Flush]);
        }
        random.shuffle(&mut deck);
        deck
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Freeze(_) => "Redis frozen",
            Self::Restart(_) => "Redis killed, back with its data",
            Self::KillClients => "all clients of Redis killed",
            Self::Cut => "connections cut",
            Self::Silence => "connections silent",
            Self::Slow(..) => "network slow",
            Self::ForgetScripts => "SCRIPT FLUSH",
            Self::Fill(_) => "Redis full",
            Self::FreezeProcess(..) => "process frozen",
            Self::Flush => "FLUSHALL",
            Self::RestartEmpty(_) => "Redis killed, back empty",
        }
    }

    /// Whether what was recorded is lost.
    fn loses(self) -> bool {
        matches!(self, Self::Flush | Self::RestartEmpty(_))
    }

    /// Whether leases run on while they cannot be renewed.
    pub(super) fn stalls(self) -> bool {
        !self.length().is_zero() || self == Self::Silence
    }

    pub(super) fn length(self) -> Duration {
        match self {
            Self::Freeze(length)
            | Self::Restart(length)
            | Self::Slow(_, length)
            | Self::Fill(length)
            | Self::FreezeProcess(_, length)
            | Self::RestartEmpty(length) => length,
            Self::KillClients | Self::Cut | Self::Silence | Self::ForgetScripts | Self::Flush => Duration::ZERO,
        }
    }

    /// Does it, and undoes it.
    pub(super) async fn inject(self, redis: &mut RedisServer, proxy: &Proxy, fleet: &Fleet, journal: &Journal) {
        journal.write(Event::Fault {
            what: self.name().to_owned(),
            loses: self.loses(),
        });
        match self {
            Self::Freeze(length) => {
                redis.freeze();
                sleep(length).await;
                redis.thaw();
            }
            Self::Restart(length) => {
                redis.kill();
                sleep(length).await;
                redis.restart().await;
            }
            Self::KillClients => {
                redis.kill_subscribers().await;
                redis.tell("CLIENT KILL TYPE normal SKIPME yes").await;
            }
            Self::Cut => proxy.cut_connections(),
            Self::Silence => proxy.silence_connections(),
            Self::Slow(latency, length) => {
                proxy.slow_down(latency);
                sleep(length).await;
                proxy.slow_down(Duration::ZERO);
            }
            Self::ForgetScripts => redis.tell("SCRIPT FLUSH").await,
            Self::Fill(length) => {
                redis.set("maxmemory", "1").await;
                sleep(length).await;
                redis.set("maxmemory", "0").await;
            }
            Self::FreezeProcess(at, length) => fleet.freeze(at, length).await,
            Self::Flush => redis.tell("FLUSHALL").await,
            Self::RestartEmpty(length) => {
                redis.kill_and_forget();
                sleep(length).await;
                redis.restart().await;
            }
        }
    }
}
