//! The servers that have records, and the place where a scan of all of them goes on.
//!
//! Owns the order of the servers and the text of a cursor. A cursor of `SCAN` means something on one server only, as long as that server
//! runs, so the text names the server, its run and the slot map. Does not own the commands of a scan: [`scan`](super::scan).

use std::fmt;
use std::ops::RangeInclusive;

use idem_core::inspect::Cursor;
use idem_core::{BackendError, BackendErrorKind};
use redis::cluster_routing::Slot;
use redis::{Cmd, ErrorKind, ServerErrorKind, Value};

use crate::backend::RedisBackend;
use crate::error::backend_error;
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
    /// The slots that it has in a cluster.
    slots: Vec<RangeInclusive<u16>>,
    /// A key of the readiness check, in one of its slots.
    pub(super) check_key: String,
}

impl Node {
    /// The slot by which commands are sent to the node.
    pub(super) fn place(&self) -> TargetSlot {
        (!self.slots.is_empty()).then(|| Slot::for_key(&self.check_key))
    }

    /// Looks for a key in one of its slots.
    fn find_check_key(&mut self, key: &str) {
        let has = |slot| {
            let mut slots = self.slots.iter().cloned().flatten().filter_map(Slot::new);
            slots.any(|known| known == slot)
        };
        let mut keys = (0..).map(|number: u32| format!("{key}:{{{number}}}"));
        self.check_key = keys.find(|key| has(Slot::for_key(key))).unwrap_or_default();
    }
}

impl Nodes {
    pub(super) async fn of(backend: &RedisBackend) -> Result<Self, BackendError> {
        let ranges = backend.connection.slots().await?;
        let key = backend.check_key();
        Ok(if backend.connection.is_cluster() {
            Self::of_cluster(ranges, &key)
        } else {
            Self::one_server(key)
        })
    }

    fn one_server(check_key: String) -> Self {
        let node = Node {
            id: String::new(),
            address: String::new(),
            slots: Vec::new(),
            check_key,
        };
        Self {
            list: vec![node],
            map: 0,
            covered: 0,
            is_cluster: false,
        }
    }

    fn of_cluster(mut ranges: Vec<Range>, key: &str) -> Self {
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
                    slots: vec![slots],
                    check_key: String::new(),
                }),
            }
        }
        for node in &mut list {
            node.find_check_key(key);
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

    /// How much of a scan is done that goes on at `position`, in percent. In a cluster, only whole servers count.
    pub(super) fn percent(&self, position: &Position) -> Option<u8> {
        if self.is_cluster {
            let done = self.list.iter().position(|node| node.id == position.node)?;
            return u8::try_from(100 * done / self.list.len()).ok();
        }
        // `SCAN` counts in the reversed bits of its cursor, whatever the size of the table.
        let done = u128::from(position.cursor.reverse_bits()) * 100;
        u8::try_from(done >> u64::BITS).ok()
    }

    /// Whether each slot has the same primary in both.
    pub(super) fn has_map_of(&self, other: &Self) -> bool {
        self.map == other.map
    }
}

impl RedisBackend {
    /// Sends `commands` in one pipeline to `node`.
    ///
    /// In a cluster, the pipeline ends with a command about a key of the node. If another node has answered, that command is refused:
    /// the application's own client may not know yet that a slot has moved. The command by itself tells it.
    pub(super) async fn ask_node(
        &self,
        what: &'static str,
        node: &Node,
        mut commands: Vec<Cmd>,
    ) -> Result<Vec<Value>, BackendError> {
        let Some(place) = node.place() else {
            return self.connection.pipeline(what, None, None, &commands).await;
        };
        let mut witness = redis::cmd("PTTL");
        witness.arg(&node.check_key);
        commands.push(witness.clone());
        for _ in 0..2 {
            let mut answers = self.connection.pipeline(what, Some(place), None, &commands).await?;
            match answers.pop().unwrap_or(Value::Nil).extract_error() {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::Moved) => {
                    let _: i64 = self.connection.query(what, &node.check_key, &witness).await?;
                }
                // The user may not call it, and will not be able to claim either.
                Err(error) if error.code() == Some("NOPERM") => return Ok(answers),
                Err(error) => return Err(backend_error(what, error)),
                Ok(_) => return Ok(answers),
            }
        }
        Err(has_changed())
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
        let nodes = Nodes::of_cluster(told.to_vec(), "idem:check");
        assert_eq!(nodes.covered, SLOTS);
        let first = nodes.first().expect("there are nodes");
        let node = nodes.node(&first).expect("it is one");
        assert_eq!((node.id.as_str(), node.address.as_str()), ("a", "host-a:7"));
        let slots = [0..=9, 16_381..=16_383];
        let is_of_b = |slot| slots.iter().cloned().flatten().any(|of_b| Slot::new(of_b) == slot);
        assert!(node.place().is_some() && !is_of_b(node.place()));
        let second = nodes.after(node).expect("there is another");
        assert_eq!(nodes.node(&second).expect("it is one").id, "b");
        assert!(is_of_b(nodes.node(&second).expect("it is one").place()));
        assert!(nodes.after(nodes.node(&second).expect("it is one")).is_none());
        let [b, a, c] = told;
        let elsewhere = Nodes::of_cluster(vec![c, a, b], "k");
        assert!(elsewhere.has_map_of(&nodes));
        assert!(elsewhere.node(&second).is_some());
    }

    #[test]
    fn a_position_does_not_outlive_the_slot_map() {
        let before = Nodes::of_cluster(vec![range(0, 99, "a"), range(100, 16_383, "b")], "k");
        let position = before.first().expect("there are nodes");
        for after in [
            vec![range(0, 98, "a"), range(99, 16_383, "b")],
            vec![range(0, 99, "a"), range(100, 16_383, "c")],
            vec![range(0, 99, "a")],
        ] {
            let after = Nodes::of_cluster(after, "k");
            assert!(after.node(&position).is_none() && !after.has_map_of(&before));
        }
    }

    #[test]
    fn the_part_of_a_scan_that_is_done_is_told_by_its_cursor() {
        let one = Nodes::one_server("k".to_owned());
        // The order in which a table of eight is scanned.
        let cursors = [0, 4, 2, 6, 1, 5, 3, 7];
        let percents = cursors.map(|cursor| {
            let first = one.first().expect("there is a node");
            one.percent(&Position { cursor, ..first })
        });
        assert_eq!(percents, [0, 12, 25, 37, 50, 62, 75, 87].map(Some));
        let three = [range(0, 99, "a"), range(100, 999, "b"), range(1_000, 16_383, "c")];
        let three = Nodes::of_cluster(three.to_vec(), "k");
        let mut position = three.first();
        let mut percents = Vec::new();
        while let Some(at) = position {
            percents.push(three.percent(&Position {
                cursor: 7,
                ..at.clone()
            }));
            position = three.node(&at).and_then(|node| three.after(node));
        }
        assert_eq!(percents, [0, 33, 66].map(Some));
    }

    #[test]
    fn a_cursor_is_read_back_and_nothing_else_is_one() {
        for nodes in [
            Nodes::one_server("k".to_owned()),
            Nodes::of_cluster(vec![range(0, 16_383, "a")], "k"),
        ] {
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
