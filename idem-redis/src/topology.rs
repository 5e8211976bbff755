//! The slot map of a cluster: which node has which slot.
//!
//! Owns the parsing of `CLUSTER SLOTS` and of redirections, and the set of known nodes. Does not own when nodes are asked:
//! [`cluster`](crate::cluster).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::cluster_routing::Slot;
use redis::{Client, FromRedisValue as _, RedisError, RedisResult, ServerErrorKind, Value};

use crate::client::{Address, RedisClient};
use crate::server::Server;

/// A node, and whether its last call failed.
pub(crate) struct Node {
    pub(crate) address: Address,
    pub(crate) server: Server,
    is_suspect: AtomicBool,
}

impl Node {
    /// The node at `address`, with the settings of the client `other`.
    fn new(address: Address, other: &Client) -> RedisResult<Arc<Self>> {
        let client = address.client_like(other)?;
        Ok(Arc::new(Self {
            address,
            server: Server::new(RedisClient::node(client)),
            is_suspect: AtomicBool::new(false),
        }))
    }

    pub(crate) fn suspect(&self, is_suspect: bool) {
        self.is_suspect.store(is_suspect, Ordering::Relaxed);
    }
}

/// The known nodes of a cluster, and the owners of its slots.
pub(crate) struct Topology {
    /// The first client that the application gave. All nodes are reached with its settings.
    like: Client,
    /// The nodes of the clients that the application gave. They are asked for the slot map too, although they may have no slot.
    seeds: Vec<Arc<Node>>,
    owners: HashMap<Slot, Arc<Node>>,
    nodes: HashMap<Address, Arc<Node>>,
}

impl Topology {
    /// A topology of which only some nodes are known, and no slot's owner.
    pub(crate) fn new(seeds: &[Client]) -> RedisResult<Self> {
        let like = seeds.first().ok_or_else(no_node)?.clone();
        let mut nodes = HashMap::new();
        for seed in seeds {
            let address = Address::of(seed).ok_or_else(no_node)?;
            nodes.insert(address.clone(), Node::new(address, seed)?);
        }
        Ok(Self {
            like,
            seeds: nodes.values().cloned().collect(),
            owners: HashMap::new(),
            nodes,
        })
    }

    /// Whether no slot's owner is known yet.
    pub(crate) fn is_unknown(&self) -> bool {
        self.owners.is_empty()
    }

    pub(crate) fn owner(&self, slot: Slot) -> Option<Arc<Node>> {
        self.owners.get(&slot).cloned()
    }

    /// All nodes that can be asked for the slot map. Nodes whose last call failed come last.
    pub(crate) fn nodes(&self) -> Vec<Arc<Node>> {
        let is_seed_only = |seed: &&Arc<Node>| !self.nodes.contains_key(&seed.address);
        let seeds = self.seeds.iter().filter(is_seed_only);
        let mut nodes: Vec<_> = self.nodes.values().chain(seeds).cloned().collect();
        nodes.sort_by_key(|node| node.is_suspect.load(Ordering::Relaxed));
        nodes
    }

    /// The nodes that have slots.
    pub(crate) fn primaries(&self) -> Vec<Arc<Node>> {
        let mut primaries: Vec<Arc<Node>> = Vec::new();
        for owner in self.owners.values() {
            if !primaries.iter().any(|primary| Arc::ptr_eq(primary, owner)) {
                primaries.push(owner.clone());
            }
        }
        primaries
    }

    /// The node at an address that another node has named.
    pub(crate) fn node(&mut self, address: Address) -> RedisResult<Arc<Node>> {
        if let Some(node) = self.nodes.get(&address) {
            return Ok(node.clone());
        }
        let seed = self.seeds.iter().find(|seed| seed.address == address).cloned();
        let node = seed.map_or_else(|| Node::new(address.clone(), &self.like), Ok)?;
        self.nodes.insert(address, node.clone());
        Ok(node)
    }

    /// Sets the owner of a slot.
    pub(crate) fn moved(&mut self, slot: Slot, owner: &Arc<Node>) {
        self.owners.insert(slot, owner.clone());
    }

    /// Replaces the slot map, and returns the nodes that have no slot any more.
    pub(crate) fn replace(&mut self, ranges: Vec<Range>) -> RedisResult<Vec<Arc<Node>>> {
        let mut owners = HashMap::new();
        let mut nodes = HashMap::new();
        for Range { first, last, owner, .. } in ranges {
            let node = self.node(owner)?;
            nodes.insert(node.address.clone(), node.clone());
            let slots = (first..=last).filter_map(Slot::new);
            owners.extend(slots.map(|slot| (slot, node.clone())));
        }
        self.owners = owners;
        let gone = std::mem::replace(&mut self.nodes, nodes);
        Ok(gone
            .into_values()
            .filter(|node| !self.nodes.contains_key(&node.address))
            .collect())
    }
}

fn no_node() -> RedisError {
    RedisError::from((ServerErrorKind::ClusterDown.into(), "no node of the cluster is known"))
}

/// Consecutive slots and their owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) owner: Address,
    /// The owner's id, which is the same for every node that names it.
    pub(crate) id: String,
}

/// Parses the answer of the node at `asked` to `CLUSTER SLOTS`.
pub(crate) fn ranges(answer: Value, asked: &Address) -> RedisResult<Vec<Range>> {
    let mut ranges = Vec::new();
    for range in Vec::<Vec<Value>>::from_redis_value(answer)? {
        let mut range = range.into_iter();
        if let (Some(first), Some(last), Some(Value::Array(owner))) = (range.next(), range.next(), range.next()) {
            let mut owner = owner.into_iter();
            let host = Option::<String>::from_redis_value(owner.next().unwrap_or(Value::Nil))?.unwrap_or_default();
            let port = u16::from_redis_value(owner.next().unwrap_or(Value::Nil))?;
            let id = String::from_redis_value(owner.next().unwrap_or(Value::Nil)).unwrap_or_default();
            // `?` means that the asked node does not know the address. Another node may know it.
            if host != "?" {
                ranges.push(Range {
                    first: u16::from_redis_value(first)?,
                    last: u16::from_redis_value(last)?,
                    owner: at(host, port, asked),
                    id,
                });
            }
        }
    }
    if ranges.is_empty() {
        return Err(no_node());
    }
    Ok(ranges)
}

/// The address of a node in an answer. An empty host stands for the host that was asked.
fn at(host: String, port: u16, asked: &Address) -> Address {
    let is_named = !matches!(host.as_str(), "" | "0.0.0.0" | "::");
    Address {
        host: if is_named { host } else { asked.host.clone() },
        port,
    }
}

/// The slot and the address to which an error of the node at `asked` redirects.
pub(crate) fn redirection(error: &RedisError, asked: &Address) -> Option<(Slot, Address)> {
    let (address, slot) = error.redirect_node()?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((Slot::new(slot)?, at(host.to_owned(), port.parse().ok()?, asked)))
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    fn address(host: &str, port: u16) -> Address {
        let host = host.to_owned();
        Address { host, port }
    }

    fn read(answer: &str) -> RedisResult<Vec<Range>> {
        let answer = answer.replace(' ', "\r\n") + "\r\n";
        ranges(
            parse_redis_value(answer.as_bytes()).expect("an answer"),
            &address("asked", 1),
        )
    }

    fn error(line: &str) -> RedisError {
        let answer = parse_redis_value(format!("{line}\r\n").as_bytes());
        answer.and_then(Value::extract_error).expect_err("it is one")
    }

    #[test]
    fn ranges_name_their_primary_and_an_empty_host_means_the_node_that_was_asked() {
        let said = read("*2 *4 :0 :9 *3 $1 a :7000 $2 id *2 $1 r :7001 *3 :10 :16383 *2 $0  :7002").expect("ranges");
        let expected = [
            (0, 9, address("a", 7000), "id"),
            (10, 16383, address("asked", 7002), ""),
        ];
        let expected = expected.map(|(first, last, owner, id)| {
            let id = id.to_owned();
            Range { first, last, owner, id }
        });
        assert_eq!(said, expected);
        let said = read("*1 *3 :0 :9 *2 $-1 :7000").expect("ranges");
        assert_eq!(said[0].owner, address("asked", 7000));
    }

    #[test]
    fn a_node_that_knows_no_owner_says_nothing() {
        assert!(read("*0").is_err());
        assert!(read("*1 *3 :0 :9 *2 $1 ? :7000").is_err());
        assert!(read("+OK").is_err());
    }

    #[test]
    fn redirections_lead_to_a_node_and_other_errors_do_not() {
        let asked = address("asked", 1);
        let led = |line| redirection(&error(line), &asked).map(|(_, address)| address);
        assert_eq!(led("-MOVED 7 10.0.0.1:7000"), Some(address("10.0.0.1", 7000)));
        assert_eq!(led("-ASK 7 ::1:7000"), Some(address("::1", 7000)));
        assert_eq!(led("-MOVED 7 :7000"), Some(address("asked", 7000)));
        assert_eq!(led("-MOVED 16384 a:7000"), None);
        assert_eq!(led("-CLUSTERDOWN Hash slot not served"), None);
    }

    #[test]
    fn nodes_without_slots_are_let_go_and_seeds_are_asked_all_the_same() {
        let seed = Client::open("redis://seed:1/").expect("a client");
        let mut topology = Topology::new(&[seed]).expect("a seed");
        assert!(topology.is_unknown());
        let whole = |host: &str| {
            let owner = address(host, 7);
            let id = host.to_owned();
            vec![Range {
                first: 0,
                last: 16383,
                owner,
                id,
            }]
        };
        assert_eq!(topology.replace(whole("a")).expect("a map").len(), 1, "the seed");
        let slot = Slot::for_key("k");
        assert_eq!(topology.owner(slot).expect("it has one").address, address("a", 7));
        let gone = topology.replace(whole("b")).expect("a map");
        assert_eq!(gone.len(), 1);
        assert_eq!(gone[0].address, address("a", 7));
        assert_eq!(topology.primaries().len(), 1);
        let asked: Vec<_> = topology.nodes().iter().map(|node| node.address.clone()).collect();
        assert_eq!(asked, [address("b", 7), address("seed", 1)]);
    }
}
