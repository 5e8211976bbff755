//! What can go wrong with Postgres alone, and with the application's pool of connections to it.

use std::time::Duration;

use tokio::time::sleep;

use crate::PostgresServer;
use crate::lab::fleet::Fleet;
use crate::lab::pool::{self, Poison};
use crate::lab::random::Random;
use crate::lab::refusals::Spared;

/// One fault of the server, or of what the application does to its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lab) enum PostgresFault {
    /// It is shut down at once, without an end for anybody, and is back.
    ShutDown(Duration),
    /// One of its processes is killed, so that it throws everybody out and recovers.
    Crash,
    /// Somebody else has the table, so that every statement waits and the pools run out of connections.
    Withhold(Duration),
    /// Every statement is serialized with the others of its time, or fails.
    Isolate(Isolation, Duration),
    /// It takes no writes, as a standby that clients were led to.
    ReadOnly(Duration),
    /// Every process leaves something behind on the idle connections of its pool.
    Poison(Poison, Duration),
    /// Every process holds all connections of its pool.
    Exhaust(Duration),
}

/// What statements may see of each other; less than `read committed` lets them, and one that would see more fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lab) enum Isolation {
    RepeatableRead,
    Serializable,
}

impl PostgresFault {
    /// One of each kind, and two of the five poisons.
    pub(super) fn deal(random: &mut Random) -> Vec<Self> {
        let mut poisons = Poison::ALL;
        random.shuffle(&mut poisons);
        vec![
            Self::ShutDown(random.millis(100, 1_500)),
            Self::Crash,
            Self::Withhold(random.millis(500, 2_500)),
            Self::Isolate(Isolation::RepeatableRead, random.millis(1_000, 3_000)),
            Self::Isolate(Isolation::Serializable, random.millis(1_000, 3_000)),
            Self::ReadOnly(random.millis(500, 2_500)),
            Self::Poison(poisons[0], random.millis(500, 1_500)),
            Self::Poison(poisons[1], random.millis(500, 1_500)),
            Self::Exhaust(random.millis(500, 1_500)),
        ]
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ShutDown(_) => "Postgres shut down at once",
            Self::Crash => "Postgres loses a process",
            Self::Withhold(_) => "table locked, connections exhausted",
            Self::Isolate(isolation, _) => isolation.name(),
            Self::ReadOnly(_) => "Postgres read only",
            Self::Poison(poison, _) => poison.name(),
            Self::Exhaust(_) => "pool exhausted",
        }
    }

    /// Whether leases run on while they cannot be renewed. They can while only the pool is of no use.
    pub(super) fn stalls(self) -> bool {
        self.spares().is_none()
    }

    pub(super) fn length(self) -> Duration {
        match self {
            Self::ShutDown(length)
            | Self::Withhold(length)
            | Self::Isolate(_, length)
            | Self::ReadOnly(length)
            | Self::Poison(_, length)
            | Self::Exhaust(length) => length,
            Self::Crash => Duration::ZERO,
        }
    }

    pub(super) fn spares(self) -> Option<Spared> {
        match self {
            Self::Poison(..) | Self::Exhaust(_) => Some(Spared::PoolUsers),
            _ => None,
        }
    }

    pub(super) async fn inject(self, postgres: &mut PostgresServer, fleet: &Fleet) {
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
            Self::ReadOnly(length) => {
                let setting = "default_transaction_read_only";
                postgres.set(setting, "on").await;
                sleep(length).await;
                postgres.set(setting, "off").await;
            }
            Self::Poison(poison, length) => {
                let poisoned = pool::poison(fleet, poison).await;
                sleep(length).await;
                // As an operator would, who finds them.
                postgres.terminate(&poisoned).await;
            }
            Self::Exhaust(length) => pool::exhaust(fleet, length).await,
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
