//! What goes wrong with the server, the way to it, and processes that stall.
//!
//! Owns each fault from its beginning to its end. Processes that die are told so by requests (`service`).

mod cluster;
mod postgres;
mod redis;
mod sqlite;

use std::time::Duration;

use idem_core::spec::history::{self, Log as _};
use tokio::time::sleep;

use self::cluster::ClusterFault;
use self::postgres::PostgresFault;
use self::redis::RedisFault;
use self::sqlite::SqliteFault;
use super::calls::CallLog;
use super::fleet::Fleet;
use super::journal::{Event, Journal};
use super::random::Random;
use super::refusals::{Span, Spared};
use super::server::{Backend, Server};
use crate::Proxy;

/// One fault, for as long as it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The server stands still.
    Freeze(Duration),
    /// The server is killed, and is back with what it had.
    Restart(Duration),
    /// The server closes every connection.
    KillClients,
    /// The connections through the proxies break.
    Cut,
    /// The connections through the proxies fall silent, and stay so.
    Silence,
    /// Each chunk through the proxies takes so long, for so long.
    Slow(Duration, Duration),
    /// The same, so short that only a large answer notices.
    SlowLine(Duration, Duration),
    /// A process stands still.
    FreezeProcess(usize, Duration),
    /// A process is killed, wherever it is. Consumers of messages only; requests say where.
    KillProcess(usize),
    /// The server forgets every record.
    Forget,
    /// What only this server knows.
    Redis(RedisFault),
    /// What only these servers know.
    Cluster(ClusterFault),
    /// What only this server knows.
    Postgres(PostgresFault),
    /// What only a file knows.
    Sqlite(SqliteFault),
}

/// What faults happen to.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) server: &'a mut Server,
    pub(super) fleet: &'a Fleet,
    pub(super) journal: &'a Journal,
    pub(super) calls: &'a CallLog,
    /// The times in which one fault was on and no other.
    pub(super) spans: Vec<Span>,
}

impl Fault {
    /// One of each kind, in any order.
    pub(super) fn deal(random: &mut Random, backend: Backend, keeps: bool) -> Vec<Self> {
        let mut deck = match backend {
            Backend::Redis | Backend::Cluster | Backend::Postgres => Self::deal_of_servers(random, backend, keeps),
            Backend::Sqlite => SqliteFault::deal(random).into_iter().map(Self::Sqlite).collect(),
        };
        if backend == Backend::Sqlite {
            deck.push(Self::freeze_process(random));
        }
        if !keeps {
            deck.extend([Self::Forget; 2]);
        }
        random.shuffle(&mut deck);
        deck
    }

    /// The same where processes are consumers of messages: some are killed, and no clock that records expire by is set.
    pub(super) fn deal_to_consumers(random: &mut Random, backend: Backend, keeps: bool) -> Vec<Self> {
        let kill = |random: &mut Random| Self::KillProcess(random.one_of(&[0, 1, 2]));
        let kills = [kill(random), kill(random), kill(random)];
        let mut deck = Self::deal(random, backend, keeps);
        deck.retain(|fault| !matches!(fault, Self::Sqlite(SqliteFault::Step(..))));
        deck.extend(kills);
        random.shuffle(&mut deck);
        deck
    }

    fn freeze_process(random: &mut Random) -> Self {
        Self::FreezeProcess(random.one_of(&[0, 1, 2]), random.millis(200, 3_000))
    }

    fn deal_of_servers(random: &mut Random, backend: Backend, keeps: bool) -> Vec<Self> {
        let mut deck = vec![
            Self::KillClients,
            Self::Cut,
            Self::Silence,
            Self::Slow(random.millis(2, 100), random.millis(200, 3_000)),
            // From 1 to 8 megabytes a second.
            Self::SlowLine(random.millis(2, 16), random.millis(2_000, 5_000)),
            Self::freeze_process(random),
        ];
        if backend != Backend::Cluster {
            deck.push(Self::Freeze(random.millis(500, 3_000)));
            deck.push(Self::Restart(random.millis(100, 1_500)));
        }
        match backend {
            Backend::Redis => deck.extend(RedisFault::deal(random, keeps).into_iter().map(Self::Redis)),
            Backend::Cluster => deck.extend(ClusterFault::deal(random, keeps).into_iter().map(Self::Cluster)),
            Backend::Postgres => deck.extend(PostgresFault::deal(random).into_iter().map(Self::Postgres)),
            Backend::Sqlite => {}
        }
        deck
    }

    pub(super) fn name(self, backend: Backend) -> String {
        let server = backend.name();
        let name = match self {
            Self::Freeze(_) => return format!("{server} frozen"),
            Self::Restart(_) => return format!("{server} killed, back with its data"),
            Self::KillClients => return format!("all clients of {server} killed"),
            Self::Cut => "connections cut",
            Self::Silence => "connections silent",
            Self::Slow(..) => "network slow",
            Self::SlowLine(..) => "line slow under large answers",
            Self::FreezeProcess(..) => "process frozen",
            Self::KillProcess(_) => "process killed at any moment",
            Self::Forget if backend == Backend::Postgres => "TRUNCATE",
            Self::Forget if backend == Backend::Sqlite => "DELETE of all records",
            Self::Forget => "FLUSHALL",
            Self::Redis(fault) => fault.name(),
            Self::Cluster(fault) => fault.name(),
            Self::Postgres(fault) => fault.name(),
            Self::Sqlite(fault) => fault.name(),
        };
        name.to_owned()
    }

    /// Whether what was recorded is lost.
    fn loses(self) -> bool {
        match self {
            Self::Forget => true,
            Self::Redis(fault) => fault.loses(),
            Self::Cluster(fault) => fault.loses(),
            _ => false,
        }
    }

    /// Whether what was recorded may be lost in part only, so that an older record is there again.
    fn goes_back(self) -> bool {
        matches!(self, Self::Cluster(ClusterFault::FailOver(..)))
    }

    /// Whether leases run on while they cannot be renewed.
    pub(super) fn stalls(self) -> bool {
        match self {
            // These take a moment.
            Self::Silence => true,
            Self::SlowLine(..) => false,
            Self::Postgres(fault) => fault.stalls(),
            Self::Sqlite(fault) => fault.stalls(),
            _ => !self.length().is_zero(),
        }
    }

    pub(super) fn length(self) -> Duration {
        match self {
            Self::Freeze(length)
            | Self::Restart(length)
            | Self::Slow(_, length)
            | Self::SlowLine(_, length)
            | Self::FreezeProcess(_, length) => length,
            Self::Redis(fault) => fault.length(),
            Self::Cluster(fault) => fault.length(),
            Self::Postgres(fault) => fault.length(),
            Self::Sqlite(fault) => fault.length(),
            Self::KillClients | Self::Cut | Self::Silence | Self::KillProcess(_) | Self::Forget => Duration::ZERO,
        }
    }

    /// Whom it does not concern, if they can be told apart.
    fn spares(self) -> Option<Spared> {
        match self {
            Self::SlowLine(..) => Some(Spared::SmallAnswers),
            Self::Cluster(fault) => fault.spares(),
            Self::Postgres(fault) => fault.spares(),
            _ => None,
        }
    }

    /// Does it, and undoes it.
    pub(super) async fn inject(self, scene: &mut Scene<'_>) {
        let span = match self.spares() {
            Some(spared) => Some(Span::begin(spared, scene.fleet).await),
            None => None,
        };
        if let (Self::Sqlite(fault), Server::Sqlite(sqlite)) = (self, &*scene.server)
            && !fault.is_possible(sqlite)
        {
            let (what, loses) = (format!("{}: left out", fault.name()), false);
            return scene.journal.write(Event::Fault { what, loses });
        }
        scene.journal.write(Event::Fault {
            what: self.name(scene.server.backend()),
            loses: self.loses(),
        });
        let from = scene.calls.now();
        self.do_harm(scene).await;
        if self.loses() {
            let (to, goes_back) = (scene.calls.now(), self.goes_back());
            scene.calls.write(history::Event::Lost { from, to, goes_back });
        }
        if let Some(mut span) = span {
            span.end();
            scene.spans.push(span);
        }
    }

    async fn do_harm(self, scene: &mut Scene<'_>) {
        let Scene {
            server, fleet, journal, ..
        } = scene;
        match (self, &mut **server) {
            (Self::Freeze(length), server) => server.freeze(length).await,
            (Self::Restart(length), server) => server.restart(length).await,
            (Self::KillClients, server) => server.kill_clients().await,
            (Self::Cut, server) => server.proxies().iter().for_each(Proxy::cut_connections),
            (Self::Silence, server) => server.proxies().iter().for_each(Proxy::silence_connections),
            (Self::Slow(latency, length) | Self::SlowLine(latency, length), server) => {
                slow_down(server.proxies(), latency, length).await;
            }
            (Self::FreezeProcess(at, length), _) => fleet.freeze(at, length).await,
            (Self::KillProcess(at), _) => fleet.kill(at, journal),
            (Self::Forget, server) => server.forget().await,
            (Self::Redis(fault), Server::Redis(redis, _)) => fault.inject(redis).await,
            (Self::Cluster(fault), Server::Cluster(cluster)) => fault.inject(cluster).await,
            (Self::Postgres(fault), Server::Postgres(postgres, _)) => fault.inject(postgres, fleet).await,
            (Self::Sqlite(fault), Server::Sqlite(sqlite)) => fault.inject(sqlite, fleet, journal).await,
            (Self::Redis(_) | Self::Cluster(_) | Self::Postgres(_) | Self::Sqlite(_), _) => {
                panic!("{self:?} was dealt for another server")
            }
        }
    }
}

async fn slow_down(proxies: &[Proxy], latency: Duration, length: Duration) {
    for proxy in proxies {
        proxy.slow_down(latency);
    }
    sleep(length).await;
    for proxy in proxies {
        proxy.slow_down(Duration::ZERO);
    }
}
