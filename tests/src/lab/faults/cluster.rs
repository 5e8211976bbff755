//! What can go wrong with one node of a Redis Cluster. The others go on.

use std::time::Duration;

use crate::lab::cluster::{Cluster, REJOIN};
use crate::lab::random::Random;
use crate::lab::refusals::Spared;

/// One fault; where it is about a node, it says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lab) enum ClusterFault {
    /// The nodes forget their scripts.
    ForgetScripts,
    /// The node says nothing, and nobody takes its place.
    Silence(usize, Duration),
    /// The node is killed, and is back with what it had.
    Restart(usize, Duration),
    /// The node has no room for anything new.
    Fill(usize, Duration),
    /// The node is killed, and is back with nothing.
    RestartEmpty(usize, Duration),
    /// The node is killed, its replica takes its place, and it is back as the replica.
    FailOver(usize, Duration),
}

impl ClusterFault {
    pub(super) fn deal(random: &mut Random, keeps: bool) -> Vec<Self> {
        let mut node = || random.one_of(&[0, 1, 2]);
        let nodes = [(); 5].map(|()| node());
        let mut deck = vec![
            Self::ForgetScripts,
            Self::Silence(nodes[0], random.millis(1_500, 3_500)),
            Self::Restart(nodes[1], random.millis(100, 1_500)),
            Self::Fill(nodes[2], random.millis(100, 1_500)),
        ];
        if !keeps {
            deck.push(Self::RestartEmpty(nodes[3], random.millis(100, 1_500)));
            deck.push(Self::FailOver(nodes[4], random.millis(100, 1_500)));
        }
        deck
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ForgetScripts => "SCRIPT FLUSH",
            Self::Silence(..) => "node silent",
            Self::Restart(..) => "node killed, back with its data",
            Self::Fill(..) => "node full",
            Self::RestartEmpty(..) => "node killed, back empty",
            Self::FailOver(..) => "node killed, its replica in its place",
        }
    }

    pub(super) fn loses(self) -> bool {
        matches!(self, Self::RestartEmpty(..) | Self::FailOver(..))
    }

    pub(super) fn length(self) -> Duration {
        match self {
            Self::Silence(_, length) | Self::Fill(_, length) => length,
            Self::Restart(_, length) | Self::RestartEmpty(_, length) | Self::FailOver(_, length) => length + REJOIN,
            Self::ForgetScripts => Duration::ZERO,
        }
    }

    pub(super) fn spares(self) -> Option<Spared> {
        match self {
            Self::Silence(node, _) => Some(Spared::OtherNodesThan(node)),
            _ => None,
        }
    }

    pub(super) async fn inject(self, cluster: &mut Cluster) {
        match self {
            Self::ForgetScripts => cluster.tell("SCRIPT FLUSH").await,
            Self::Silence(node, length) => cluster.silence(node, length).await,
            Self::Restart(node, length) => cluster.restart(node, length, true).await,
            Self::Fill(node, length) => cluster.fill(node, length).await,
            Self::RestartEmpty(node, length) => cluster.restart(node, length, false).await,
            Self::FailOver(node, length) => cluster.fail_over(node, length).await,
        }
    }
}
