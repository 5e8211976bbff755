//! What can go wrong with Redis alone.

use std::time::Duration;

use tokio::time::sleep;

use crate::RedisServer;
use crate::lab::random::Random;

/// One fault of a single server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lab) enum RedisFault {
    /// Redis forgets its scripts.
    ForgetScripts,
    /// Redis has no room for anything new.
    Fill(Duration),
    /// Redis is killed, and is back with nothing.
    RestartEmpty(Duration),
}

impl RedisFault {
    pub(super) fn deal(random: &mut Random, keeps: bool) -> Vec<Self> {
        let mut deck = vec![Self::ForgetScripts, Self::Fill(random.millis(100, 1_500))];
        if !keeps {
            deck.push(Self::RestartEmpty(random.millis(100, 1_500)));
        }
        deck
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ForgetScripts => "SCRIPT FLUSH",
            Self::Fill(_) => "Redis full",
            Self::RestartEmpty(_) => "Redis killed, back empty",
        }
    }

    pub(super) fn loses(self) -> bool {
        matches!(self, Self::RestartEmpty(_))
    }

    pub(super) fn length(self) -> Duration {
        match self {
            Self::Fill(length) | Self::RestartEmpty(length) => length,
            Self::ForgetScripts => Duration::ZERO,
        }
    }

    pub(super) async fn inject(self, redis: &mut RedisServer) {
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
