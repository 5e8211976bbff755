//! The Redis backend of idem: one plain command to claim or replay, one script to complete.
//!
//! Owns the layout of keys and values in Redis, and the atomicity of each operation. Decides nothing: the engine decides
//! which request runs, waits or is refused.
//!
//! | step | command |
//! |---|---|
//! | claim, replay | `SET key claim NX GET PX ttl+lease` |
//! | is the claim in the way live? | `PTTL key`: live while at least the claim's `ttl` is left |
//! | take over, renew, release | a script that compares the whole stored claim |
//! | complete | such a script: one call for all claims that a process completes at the same time; in a cluster, one call per claim |
//! | complete with more than 64 KiB | `SET key:p:token answer NX PX 60000` on a connection for large answers, then such a script for the record |
//! | replay more than 64 KiB | the claim, then `GET key:p:token` on the connection for large answers; requests that ask at the same time share it |
//! | list | `SCAN`, then for each record a script that reads its beginning; never `KEYS` |
//! | settle, by an operator | a script that compares the token and the state |
//! | wait | `SUBSCRIBE` (in a cluster `SSUBSCRIBE`) to one channel per key, on one connection for all waiters of a process |
//!
//! A record is one binary string under `idem:{operation:scope:key}`. [`RecordKey`](idem_core::RecordKey) describes the part
//! in braces. The braces make that part the hash tag: in a cluster, everything about a record is in one slot. Redis 7.0 or
//! Valkey 8 is needed for `SET … NX GET`.
//!
//! To connect to one server, a cluster or sentinels, give a URL to [`RedisBackend::connect`], or a client of the application
//! to [`RedisBackend::connect_with`]. [`RedisBackend::lazy`] lets a service start before its Redis does.
//!
//! # Outages
//!
//! | Redis | requests | an outcome that waits to be recorded |
//! |---|---|---|
//! | is unreachable, frozen, loading, read only, or down as a cluster | 503 | is recorded when Redis is back |
//! | refuses the password, the user or a permission, or has too many clients | 503 | is recorded when that is fixed |
//! | has fewer replicas in step than `min-replicas-to-write`, or a disk that takes no snapshot | 503, replays too, because `SET … NX GET` is a write | is recorded when that is fixed |
//! | is full, under `noeviction` | 503, replays too | is recorded at once |
//! | is a cluster with a node that is silent or lost | 503 for the slots of that node only | is recorded when a node has the slot |
//!
//! # Permissions
//!
//! These are the permissions that the Redis user needs, for the default prefix. With `with_prefix("orders")`, replace
//! `~idem:* &idem:*` by `~orders:* &orders:*`.
//!
//! ```text
//! ~idem:* &idem:* -@all +set +get +getrange +pttl +pexpire +del +evalsha +script|load +publish +subscribe +unsubscribe
//! ```
//!
//! In a cluster, add:
//!
//! ```text
//! +cluster|slots +asking +ping +spublish +ssubscribe +sunsubscribe
//! ```
//!
//! For handlers with durable steps, add:
//!
//! ```text
//! +hset +hgetall
//! ```
//!
//! For operators, who list, show and settle records and check the servers, add the permissions for durable steps and:
//!
//! ```text
//! +scan +strlen +hdel +info +config|get
//! ```
//!
//! In a cluster, operators need `+cluster|info` too.
//!
//! Redis checks the commands inside scripts against the same list. Two more permissions are useful:
//!
//! - `+info` lets the check at start read the server's configuration.
//! - `+ping` keeps denied health checks out of `ACL LOG`. The connection of the waiters and the one of large answers are checked
//!   by `PING`.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod check;
mod client;
mod cluster;
mod completions;
mod connection;
mod error;
#[cfg(fuzzing)]
mod fuzz;
mod inspect;
mod large;
mod link;
mod pace;
mod reading;
mod record;
mod scripts;
mod server;
mod steps;
mod subscriber;
mod subscriptions;
mod topology;

pub use backend::RedisBackend;
pub use client::RedisClient;
/// The Redis client whose types [`RedisClient`] is made from.
pub use redis;

/// The door for the targets in `fuzz`, and for `bench/benches`. Not part of the public interface.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod __fuzz {
    pub use crate::fuzz::read_and_write;
}
