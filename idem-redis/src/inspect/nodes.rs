//! The servers that have records, and the place where a scan of all of them goes on.
//!
//! Owns the order of the servers and the text of a cursor. A cursor of `SCAN` means something on one server only, as long as that server
//! runs, so the text names the server, its run and the slot map. Does not own the commands of a scan: [`scan`](super::scan).

use std::fmt;
use std::ops::RangeInclusive;

use idem_core::inspect::Cursor;
use idem_core::{BackendError, BackendErrorKind};
use redis::cluster_routing::Slot;

use crate::connection::Connection;
use crate::server::TargetSlot;
use crate::topology::Range;

/// The number of slots of a cluster.
pub(super) const SLOTS: usize = 16_384;

/// One server, or the primaries of a cluster in the order of their ids.
pub(super) struct Nodes {
    pub(super) list: Vec<Node>,
    /// Which primary has which slots, as a hash. Zero for one server.
    map: u64,
    /// How many slots have a primary.
    pub(super) covered: usize,
    /// Whether it took a command to find them.
    pub(super) is_cluster: bool,
}

/// A server that has records.
#[derive(Clone)]
pub(super) struct Node {
    /// Empty for one server.
    id: String,
    /// Its address in a cluster, for people. Empty for one server.
    pub(super) address: String,
    /// A slot that it has.
    pub(super) place: TargetSlot,
    slots: Vec<RangeInclusive<u16>>,
}

impl Node {
    pub(super) fn has_slot_of(&self, key: &str) -> bool {
        let slot = Slot::for_key(key);
        let mut slots = self.slots.iter().cloned().flatten().filter_map(Slot::new);
        slots.any(|known| known == slot)
    }
}

impl Nodes {
    pub(super) async fn of(connection: &Connection) -> Result<Self, BackendError> {
        let ranges = connection.slots().await?;
        Ok(if connection.is_cluster() {
            Self::of_cluster(ranges)
        } else {
            Self::one_server()
        })
    }

    fn one_server() -> Self {
        let node = Node {
            id: String::new(),
            address: String::new(),
            place: None,
            slots: Vec::new(),
        };
        Self {
            list: vec![node],
            map: 0,
            covered: 0,
            is_cluster: false,
        }
    }

    fn of_cluster(mut ranges: Vec<Range>) -> Self {
        ranges.sort_by_key(|range| range.first);
        let mut list: Vec<Node> = Vec::new();
        let (mut map, mut covered) = (Fnv::default(), 0);
        for range in ranges {
            let address = format!("{}:{}", range.owner.host, range.owner.port);
            let id = if range.id.is_empty() { address.clone() } else { range.id };
            map.add(&format!("{}-{} {id};", range.first, range.last));
            covered += usize::from(range.last.saturating_sub(range.first)) + 1;
            let slots = range.first..=range.last;
            match list.iter_mut().find(|node| node.id == id) {
                Some(node) => node.slots.push(slots),
                None => list.push(Node {
                    id,
                    address,
                    place: Slot::new(range.first),
                    slots: vec![slots],
                }),
            }
        }
        list.sort_by(|one, other| one.id.cmp(&other.id));
        Self {
            list,
            map: map.0,
            covered,
            is_cluster: true,
        }
    }

    /// Where a scan begins; `None` if there is no server.
    pub(super) fn first(&self) -> Option<Position> {
        self.list.first().map(|node| self.beginning_of(node))
    }

    /// Where a scan goes on after `node`; `None` if that was the last one.
    pub(super) fn after(&self, node: &Node) -> Option<Position> {
        let mut rest = self.list.iter().skip_while(|known| known.id != node.id);
        rest.nth(1).map(|node| self.beginning_of(node))
    }

    fn beginning_of(&self, node: &Node) -> Position {
        Position {
            cursor: 0,
            run: String::new(),
            node: node.id.clone(),
            map: self.map,
        }
    }

    /// The server of a position, unless the slots have got other primaries since.
    pub(super) fn node(&self, position: &Position) -> Option<&Node> {
        let is_same = self.map == position.map;
        self.list.iter().find(|node| is_same && node.id == position.node)
    }

    /// Whether each slot has the same primary in both.
    pub(super) fn has_map_of(&self, other: &Self) -> bool {
        self.map == other.map
    }
}

/// The hash FNV-1a, which is the same in every process.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, text: &str) {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }
}

/// Where a scan goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The cursor of `SCAN`, zero at the beginning of a server.
    pub(super) cursor: u64,
    /// The beginning of the server's run id; empty at the beginning of a server, or if it could not be read.
    pub(super) run: String,
    pub(super) node: String,
    pub(super) map: u64,
}

impl Position {
    /// Reads a cursor.
    pub(super) fn read(cursor: &Cursor) -> Result<Self, BackendError> {
        let mut parts = cursor.as_str().split('/');
        let mut part = || parts.next();
        let read = (|| {
            let position = Self {
                cursor: part()?.parse().ok()?,
                run: part()?.to_owned(),
                node: part()?.to_owned(),
                map: u64::from_str_radix(part()?, 16).ok()?,
            };
            part().is_none().then_some(position)
        })();
        read.ok_or_else(|| BackendError::new(BackendErrorKind::Config, "the cursor is not one of this store"))
    }

    pub(super) fn cursor(&self) -> Cursor {
        Cursor::new(self.to_string())
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{:x}", self.cursor, self.run, self.node, self.map)
    }
}

/// The error of a scan that cannot go on. If it did, it would miss records.
pub(super) fn has_changed() -> BackendError {
    let context = "the servers have changed since the scan began; begin the scan again";
    BackendError::new(BackendErrorKind::Config, context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Address;

    fn range(first: u16, last: u16, id: &str) -> Range {
        let owner = Address {
            host: format!("host-{id}"),
            port: 7,
        };
        let id = id.to_owned();
        Range { first, last, owner, id }
    }

    #[test]
    fn the_order_of_the_primaries_is_that_of_their_ids_whoever_is_asked() {
        let told = [range(0, 9, "b"), range(10, 16_380, "a"), range(16_381, 16_383, "b")];
        let nodes = Nodes::of_cluster(told.to_vec());
        assert_eq!(nodes.covered, SLOTS);
        let first = nodes.first().expect("there are nodes");
        let node = nodes.node(&first).expect("it is one");
        assert_eq!((node.id.as_str(), node.address.as_str()), ("a", "host-a:7"));
        assert_eq!(node.place, Slot::new(10));
        let second = nodes.after(node).expect("there is another");
        assert_eq!(nodes.node(&second).expect("it is one").id, "b");
        assert!(nodes.after(nodes.node(&second).expect("it is one")).is_none());
        let [b, a, c] = told;
        let elsewhere = Nodes::of_cluster(vec![c, a, b]);
        assert!(elsewhere.has_map_of(&nodes));
        assert!(elsewhere.node(&second).is_some());
    }

    #[test]
    fn a_position_does_not_outlive_the_slot_map() {
        let before = Nodes::of_cluster(vec![range(0, 99, "a"), range(100, 16_383, "b")]);
        let position = before.first().expect("there are nodes");
        for after in [
            vec![range(0, 98, "a"), range(99, 16_383, "b")],
            vec![range(0, 99, "a"), range(100, 16_383, "c")],
            vec![range(0, 99, "a")],
        ] {
            let after = Nodes::of_cluster(after);
            assert!(after.node(&position).is_none() && !after.has_map_of(&before));
        }
    }

    #[test]
    fn a_cursor_is_read_back_and_nothing_else_is_one() {
        for nodes in [Nodes::one_server(), Nodes::of_cluster(vec![range(0, 16_383, "a")])] {
            let position = Position {
                cursor: u64::MAX,
                run: "1f".to_owned(),
                ..nodes.first().expect("there is a node")
            };
            assert_eq!(Position::read(&position.cursor()).expect("it is one"), position);
        }
        for text in ["", "0", "0///", "x///0", "0///0/", "-1///0", "0//a/g"] {
            let error = Position::read(&Cursor::new(text)).expect_err(text);
            assert_eq!(error.kind(), BackendErrorKind::Config);
        }
    }
}
