//! What goes wrong with the server, the way to it, and processes that stall.
//!
//! Owns each fault from its beginning to its end. Processes that die are told so by requests (`service`).

use std::time::Duration;

use tokio::time::sleep;

use super::fleet::Fleet;
use super::journal::{Event, Journal};
use super::random::Random;
use super::server::{Backend, Server};
use crate::{PostgresServer, Proxy, RedisServer};

/// One fault, for as long as it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The server stands still.
    Freeze(Duration),
    /// The server is killed, and is back with what it had.
    Restart(Duration),
    /// The server closes every connection.
    KillClients,
    /// The connections through the proxy break.
    Cut,
    /// The connections through the proxy fall silent, and stay so.
    Silence,
    /// Each chunk through the proxy takes so long, for so long.
    Slow(Duration, Duration),
    /// A process stands still.
    FreezeProcess(usize, Duration),
    /// The server forgets every record.
    Forget,
    /// What only this server knows.
    Redis(RedisFault),
    /// What only this server knows.
    Postgres(PostgresFault),
}

/// What can go wrong with Redis alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RedisFault {
    /// Redis forgets its scripts.
    ForgetScripts,
    /// Redis has no room for anything new.
    Fill(Duration),
    /// Redis is killed, and is back with nothing.
    RestartEmpty(Duration),
}

/// What can go wrong with Postgres alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PostgresFault {
    /// It is shut down at once, without an end for anybody, and is back.
    ShutDown(Duration),
    /// One of its processes is killed, so that it throws everybody out and recovers.
    Crash,
    /// Somebody else has the table, so that every statement waits and the pools run out of connections.
    Withhold(Duration),
    /// Every statement is serialized with the others of its time, or fails.
    Isolate(Isolation, Duration),
}

/// What statements may see of each other; less than `read committed` lets them, and one that would see more fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isolation {
    RepeatableRead,
    Serializable,
}

impl Fault {
    /// One of each kind, in any order.
    pub(super) fn deal(random: &mut Random, backend: Backend, keeps: bool) -> Vec<Self> {
        let mut deck = vec![
            Self::Freeze(random.millis(500, 3_000)),
            Self::Restart(random.millis(100, 1_500)),
            Self::KillClients,
            Self::Cut,
            Self::Silence,
            Self::Slow(random.millis(2, 100), random.millis(200, 3_000)),
        ];
        match backend {
            Backend::Redis => deck.extend([
                Self::Redis(RedisFault::ForgetScripts),
                Self::Redis(RedisFault::Fill(random.millis(100, 1_500))),
            ]),
            Backend::Postgres => deck.extend([
                Self::Postgres(PostgresFault::ShutDown(random.millis(100, 1_500))),
                Self::Postgres(PostgresFault::Crash),
                Self::Postgres(PostgresFault::Withhold(random.millis(500, 2_500))),
                Self::isolate(random, Isolation::RepeatableRead),
                Self::isolate(random, Isolation::Serializable),
            ]),
        }
        deck.push(Self::FreezeProcess(
            random.one_of(&[0, 1, 2]),
            random.millis(200, 3_000),
        ));
        if !keeps {
            let again = match backend {
                Backend::Redis => Self::Redis(RedisFault::RestartEmpty(random.millis(100, 1_500))),
                Backend::Postgres => Self::Forget,
            };
            deck.extend([Self::Forget, again, Self::Forget]);
        }
        random.shuffle(&mut deck);
        deck
    }

    fn isolate(random: &mut Random, isolation: Isolation) -> Self {
        Self::Postgres(PostgresFault::Isolate(isolation, random.millis(1_000, 3_000)))
    }

    pub(super) fn name(self, backend: Backend) -> String {
        let what = match self {
            Self::Freeze(_) => "frozen",
            Self::Restart(_) => "killed, back with its data",
            Self::KillClients => return format!("all clients of {} killed", backend.name()),
            Self::Cut => return "connections cut".to_owned(),
            Self::Silence => return "connections silent".to_owned(),
            Self::Slow(..) => return "network slow".to_owned(),
            Self::FreezeProcess(..) => return "process frozen".to_owned(),
            Self::Forget if backend == Backend::Redis => return "FLUSHALL".to_owned(),
            Self::Forget => return "TRUNCATE".to_owned(),
            Self::Redis(RedisFault::ForgetScripts) => return "SCRIPT FLUSH".to_owned(),
            Self::Redis(RedisFault::Fill(_)) => "full",
            Self::Redis(RedisFault::RestartEmpty(_)) => "killed, back empty",
            Self::Postgres(PostgresFault::ShutDown(_)) => "shut down at once",
            Self::Postgres(PostgresFault::Crash) => "loses a process",
            Self::Postgres(PostgresFault::Withhold(_)) => return "table locked, pools exhausted".to_owned(),
            Self::Postgres(PostgresFault::Isolate(isolation, _)) => return isolation.name().to_owned(),
        };
        format!("{} {what}", backend.name())
    }

    /// Whether what was recorded is lost.
    fn loses(self) -> bool {
        matches!(self, Self::Forget | Self::Redis(RedisFault::RestartEmpty(_)))
    }

    /// Whether leases run on while they cannot be renewed.
    pub(super) fn stalls(self) -> bool {
        let takes_a_moment = [Self::Silence, Self::Postgres(PostgresFault::Crash)];
        !self.length().is_zero() || takes_a_moment.contains(&self)
    }

    pub(super) fn length(self) -> Duration {
        match self {
            Self::Freeze(length)
            | Self::Restart(length)
            | Self::Slow(_, length)
            | Self::FreezeProcess(_, length)
            | Self::Redis(RedisFault::Fill(length) | RedisFault::RestartEmpty(length))
            | Self::Postgres(
                PostgresFault::ShutDown(length) | PostgresFault::Withhold(length) | PostgresFault::Isolate(_, length),
            ) => length,
            Self::KillClients
            | Self::Cut
            | Self::Silence
            | Self::Forget
            | Self::Redis(RedisFault::ForgetScripts)
            | Self::Postgres(PostgresFault::Crash) => Duration::ZERO,
        }
    }

    /// Does it, and undoes it.
    pub(super) async fn inject(self, server: &mut Server, proxy: &Proxy, fleet: &Fleet, journal: &Journal) {
        journal.write(Event::Fault {
            what: self.name(server.backend()),
            loses: self.loses(),
        });
        match (self, server) {
            (Self::Freeze(length), server) => server.freeze(length).await,
            (Self::Restart(length), server) => server.restart(length).await,
            (Self::KillClients, server) => server.kill_clients().await,
            (Self::Cut, _) => proxy.cut_connections(),
            (Self::Silence, _) => proxy.silence_connections(),
            (Self::Slow(latency, length), _) => {
                proxy.slow_down(latency);
                sleep(length).await;
                proxy.slow_down(Duration::ZERO);
            }
            (Self::FreezeProcess(at, length), _) => fleet.freeze(at, length).await,
            (Self::Forget, server) => server.forget().await,
            (Self::Redis(fault), Server::Redis(redis)) => fault.inject(redis).await,
            (Self::Postgres(fault), Server::Postgres(postgres)) => fault.inject(postgres).await,
            (Self::Redis(_), Server::Postgres(_)) | (Self::Postgres(_), Server::Redis(_)) => {
                panic!("{self:?} was dealt for the other server")
            }
        }
    }
}

impl RedisFault {
    async fn inject(self, redis: &mut RedisServer) {
        match self {
            Self::ForgetScripts => redis.tell("SCRIPT FLUSH").await,
            Self::Fill(length) => {
                redis.set("maxmemory", "1").await;
                sleep(length).await;
                redis.set("maxmemory", "0").await;
            }
            Self::RestartEmpty(length) => {
                redis.kill_and_forget();
                sleep(length).await;
                redis.restart().await;
            }
        }
    }
}

impl PostgresFault {
    async fn inject(self, postgres: &mut PostgresServer) {
        match self {
            Self::ShutDown(length) => {
                postgres.shut_down_at_once();
                sleep(length).await;
                postgres.restart().await;
            }
            Self::Crash => postgres.crash().await,
            Self::Withhold(length) => {
                let held = postgres.hold("LOCK TABLE idem_records IN ACCESS EXCLUSIVE MODE").await;
                sleep(length).await;
                drop(held);
            }
            Self::Isolate(isolation, length) => {
                let setting = "default_transaction_isolation";
                postgres.set(setting, isolation.name()).await;
                sleep(length).await;
                postgres.set(setting, "read committed").await;
            }
        }
    }
}

impl Isolation {
    /// As Postgres calls it.
    fn name(self) -> &'static str {
        match self {
            Self::RepeatableRead => "repeatable read",
            Self::Serializable => "serializable",
        }
    }
}
